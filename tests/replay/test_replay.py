"""Replay: a job's params from its facts and bodies alone, bit for bit; and what they come to without a site."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedbus.aggregator.model import bodies
from fedbus.aggregator.model.keeper import ModelKeeper
from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.frames import Code
from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.core.protocol.messages import Chunk, UpdateId
from fedbus.core.rules.aggregation import Aggregation, Arrival
from fedbus.core.rules.facts import Committed, Folded, Refused
from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import StoreError
from fedbus.replay.contributions import applied, groups_of
from fedbus.replay.leave_out import LeftOut, leave_out
from fedbus.replay.replay import Replay, jobs_with_params, record
from fedbus.replay.verification import Verdict, verify
from fedbus.store.checkpoints import Checkpoints
from fedbus.store.ledger import Ledger
from fedbus.store.spool import Spool
from fedbus.store.state_reader import StateReader
from fedbus.tensors import codec
from fedbus.tensors.global_model import GlobalModel
from fedbus.tensors.server_optimizer import make_server_optimizer

LAYOUT = Layout.of(
    [
        TensorSpec(name="encoder.weight", shape=(40, 50), dtype="float32"),
        TensorSpec(name="encoder.bias", shape=(5,), dtype="float32"),
        TensorSpec(name="head.weight", shape=(3, 4), dtype="float16"),
    ]
)
CHUNK_BYTES = 256 * 1024


def delta_of(number: int) -> torch.Tensor:
    return torch.randn(LAYOUT.numel, generator=torch.Generator().manual_seed(number))


class Job:
    """A job as its aggregator leads it, without a bus: ledger, spool and checkpoints in `folder`."""

    def __init__(self, folder: Path, *, keep_updates: bool = True, **keys: Any) -> None:
        local = {"steps": 1, "batch_size": 1, "learning_rate": 0.1}
        strategy = {"kind": "buffered", "buffer": 2}
        # a step that is given, so that commits can be made by hand
        self.spec = TrainingSpec.parse(
            {"name": "heart", "task": "t", "seed": 3, "local": local, "stop": {"versions": 99}, "strategy": strategy}
            | {"chunk_bytes": CHUNK_BYTES, "server_optimizer": {"kind": "plain", "lr": 1.0}}
            | keys
        )
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.ledger = Ledger(folder / "ledger.sqlite3")
        self.ledger.add_job("heart", self.spec.to_dict(), message_id="1", submitted_by="me", state="running", at=0.0)
        self.aggregation = Aggregation(self.spec, now=0.0)
        self.aggregation.set_active(["mercy", "ucsf"], now=0.0)
        self.sent, self.now = 0, 0.0
        self.open(keep_updates=keep_updates)

    def open(self, *, keep_updates: bool) -> None:
        """Start the aggregator (again)."""
        self.spool = Spool(self.folder / "spool", keep_updates=keep_updates)
        self.keeper = ModelKeeper(
            "heart",
            self.spec,
            ledger=self.ledger,
            spool=self.spool,
            folder=self.folder / "jobs" / "heart",
        )
        if self.aggregation.updates:
            facts = [(row.seq, row.fact) for row in self.ledger.facts("heart")]
            deque(self.keeper.restore(LAYOUT, facts), maxlen=0)

    def begin(self) -> Job:
        self.keeper.start(LAYOUT, torch.linspace(-1, 1, LAYOUT.numel))
        self.ledger.set_job("heart", layout=LAYOUT.to_dict())
        return self

    def sends(self, site: str, delta: torch.Tensor | None = None, *, num_examples: int = 10) -> Folded:
        """An update that is folded; the buffer is committed when it is full."""
        self.sent += 1
        update_id = UpdateId(site=site, incarnation="0123abcd", sequence=self.sent)
        self.spools(update_id, delta_of(self.sent) if delta is None else delta)
        norm = self.keeper.inspect(str(update_id)).norm
        version = self.aggregation.version
        arrival = Arrival(
            update_id=update_id, base_version=version, effort=Effort(num_examples=num_examples), norm=norm
        )
        fact = self.aggregation.receive(arrival, now=self.now)
        assert isinstance(fact, Folded)
        self.records(fact)
        self.keeper.fold(fact)
        if self.aggregation.commit_due(now=self.now):
            self.commits()
        return fact

    def spools(self, update_id: UpdateId, delta: torch.Tensor) -> None:
        frames = list(codec.encode(delta, LAYOUT, Code.FP32, chunk_bytes=CHUNK_BYTES, seed=0))
        chunks = [
            Chunk(job="heart", transfer=str(update_id), part="update", index=i, count=len(frames), body=frame)
            for i, frame in enumerate(frames)
        ]
        self.ledger.record_arrivals(self.spool.append(chunks), [], at=0.0)

    def records(self, fact: Folded | Refused | Committed) -> None:
        self.last_seq = self.ledger.record_facts("heart", [fact], at=0.0)

    def commits(self) -> None:
        fact = self.aggregation.commit(now=self.now, reason="so it is told")
        self.records(fact)
        deque(self.keeper.commit(fact).frames, maxlen=0)

    def saves(self) -> None:
        self.keeper.save(version=self.aggregation.version, fact_seq=self.last_seq)

    def ends(self) -> None:
        self.saves()
        bodies.clear("heart", ledger=self.ledger, spool=self.spool)

    def archived(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "archive").glob("heart/*"))

    def verdict(self, told: Callable[[], None] = lambda: None) -> Verdict:
        with StateReader(self.folder) as state:
            return verify(state, "heart", told=told)[0]

    def without(self, *sites: str) -> tuple[LeftOut, Replay]:
        with StateReader(self.folder) as state:
            return leave_out(state, record(state, "heart"), sites)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job of two sites with checkpoints of versions 0, 3 and 5, and one of its seven versions after that."""
    return seven_versions(Job(tmp_path / "state"))


def seven_versions(job: Job) -> Job:
    job.begin()
    for number in range(7):
        job.sends("mercy", num_examples=10)
        job.sends("ucsf", num_examples=40)
        if number in {2, 4}:
            job.saves()
    return job


# ------------------------------------------------------------------ verify


@pytest.mark.parametrize("down", ["fp32", "int8"])
@pytest.mark.parametrize("kind", ["plain", "momentum", "adam", "yogi"])
def test_with_its_updates_kept_a_job_is_replayed_from_version_0(tmp_path: Path, kind: str, down: str) -> None:
    job = seven_versions(Job(tmp_path / "state", server_optimizer={"kind": kind, "lr": 0.1}, codec={"down": down}))
    with StateReader(job.folder) as state:
        verdict, done = verify(state, "heart")
    assert (verdict.from_version, verdict.to_version, verdict.updates) == (0, 7, 14)
    assert verdict.says == "bit-identical to the checkpoints of versions 3 and 5"
    assert verdict.identical
    # and beyond the last checkpoint it is where the aggregator is
    assert {n: t.numpy().tobytes() for n, t in done.model.state().items()} == {
        n: t.numpy().tobytes() for n, t in job.keeper.model.state().items()
    }


def test_without_that_it_is_replayed_from_the_older_checkpoint_and_says_why(tmp_path: Path) -> None:
    verdict = seven_versions(Job(tmp_path / "state", keep_updates=False)).verdict()
    assert (verdict.from_version, verdict.to_version, verdict.updates) == (3, 7, 8)
    assert verdict.says == (
        "bit-identical to the checkpoint of version 5; the bodies of 6 updates before version 3 are gone; "
        "`fedbus aggregator --keep-updates` keeps them"
    )


def test_a_job_that_is_over_is_replayed_from_its_archive(job: Job) -> None:
    job.ends()
    assert not job.spool.holds("heart")
    verdict = job.verdict()
    assert (verdict.from_version, verdict.to_version, verdict.identical) == (0, 7, True)


def test_a_job_that_is_over_without_an_archive_says_what_would_have_kept_it(tmp_path: Path) -> None:
    job = seven_versions(Job(tmp_path / "state", keep_updates=False))
    job.ends()
    verdict = job.verdict()
    assert verdict.identical is None
    assert verdict.says == (
        "cannot be verified: the bodies of 14 updates before version 7 are gone; "
        "`fedbus aggregator --keep-updates` keeps them"
    )
    assert job.archived() == []


def test_updates_that_are_kept_from_some_moment_on_are_replayed_from_there(tmp_path: Path) -> None:
    # given: an aggregator that is told to keep updates only after version 7
    job = seven_versions(Job(tmp_path / "state", keep_updates=False))
    job.open(keep_updates=True)
    for _ in range(3):
        job.sends("mercy"), job.sends("ucsf")
        job.saves()
    # then: what two checkpoints covered by then is gone, everything since is there
    verdict = job.verdict()
    assert (verdict.gone, verdict.from_version, verdict.compared, verdict.identical) == (6, 3, (9, 10), True)
    assert job.archived()[0] == "mercy.0123abcd.11.frames"


def test_an_aggregator_that_does_not_keep_any_more_leaves_what_was_kept(job: Job) -> None:
    kept = job.archived()
    job.open(keep_updates=False)
    job.ends()
    assert set(kept) <= set(job.archived())
    assert all(
        job.ledger.chunks("heart", name.removesuffix(".frames").replace(".", ":")) for name in kept if "frames" in name
    )


def test_a_refused_body_is_never_kept(job: Job) -> None:
    # given: a refused update whose body outlived a kill
    update_id = UpdateId(site="mercy", incarnation="0123abcd", sequence=99)
    job.spools(update_id, delta_of(99))
    job.records(Refused(update_id=update_id, reason="stale"))
    # when: the aggregator starts again, and the job ends
    job.open(keep_updates=True)
    job.ends()
    # then
    assert "mercy.0123abcd.99.frames" not in job.archived()
    assert job.ledger.chunks("heart", str(update_id)) == []
    assert job.verdict().identical


@pytest.mark.parametrize("name", ["params", "hidden", "optimizer.v"])
def test_a_checkpoint_that_differs_in_one_bit_is_named_with_the_place(tmp_path: Path, name: str) -> None:
    job = seven_versions(Job(tmp_path / "state", server_optimizer={"kind": "adam", "lr": 0.1}))
    # given: a newest checkpoint in which one bit of weight[1, 2] is another
    folder = job.folder / "jobs" / "heart" / "checkpoints"
    newest = Checkpoints(folder).newest()
    assert newest is not None
    arrays = newest.read()
    at = LAYOUT.slices()["encoder.weight"][0] + 52
    before = arrays[name][at].item()
    arrays[name][at : at + 1].view(np.int32)[0] ^= 1
    Checkpoints(folder).save(version=5, fact_seq=newest.fact_seq, digest=newest.digest, arrays=arrays)
    # then
    verdict = job.verdict()
    after = arrays[name][at].item()
    assert verdict.identical is False
    assert verdict.difference == (
        f"{name}, encoder.weight[1, 2]: {before:.9g} in the replay, {after:.9g} in the checkpoint"
    )
    assert verdict.says.startswith("differs from the checkpoint of version 5: ")


def test_a_checkpoint_to_begin_with_that_is_damaged_is_named(job: Job) -> None:
    path = job.folder / "archive" / "heart" / "v00000000.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    content[-3 - 4 * LAYOUT.numel] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match=rf"checkpoint {path} is damaged: its hidden params have digest"):
        job.verdict()


@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_a_damaged_body_is_named(job: Job, damage: str) -> None:
    path = job.folder / "archive" / "heart" / "ucsf.0123abcd.2.frames"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content if damage == "flipped" else content[:-1])
    with pytest.raises(StoreError, match=rf"job heart: update ucsf:0123abcd:2 \({path}\) is damaged: "):
        job.verdict()


def test_facts_that_do_not_fit_each_other_are_named(job: Job) -> None:
    lost = [fact.seq for fact in job.ledger.facts("heart")][4]
    with sqlite3.connect(job.folder / "ledger.sqlite3") as db:
        db.execute("DELETE FROM facts WHERE seq = ?", (lost,))
    with pytest.raises(StoreError, match=rf"job heart: fact {lost + 1} of the ledger does not fit those before it"):
        job.verdict()


def test_an_aggregator_that_moves_on_meanwhile_is_followed(tmp_path: Path) -> None:
    # given: an aggregator that writes two checkpoints, and deletes bodies, while the first of them is read
    job = seven_versions(Job(tmp_path / "state", keep_updates=False))
    moves = iter([job.saves, lambda: (job.sends("mercy"), job.sends("ucsf"), job.saves())])

    def moves_on() -> None:
        for move in moves:
            move()

    # then: the replay begins again where the aggregator is by then
    verdict = job.verdict(moves_on)
    assert (verdict.from_version, verdict.to_version) == (7, 8)
    assert verdict.identical


def test_the_buffer_that_was_not_committed_changes_nothing(job: Job) -> None:
    job.sends("mercy")
    verdict = job.verdict()
    assert (verdict.to_version, verdict.updates, verdict.identical) == (7, 15, True)


def test_a_job_at_version_0_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    verdict = Job(tmp_path / "state").begin().verdict()
    assert verdict.identical is None
    assert verdict.says == "nothing to compare with yet: the checkpoint of version 0 is the only one"


def test_jobs_that_cannot_be_replayed_are_said(tmp_path: Path) -> None:
    job = Job(tmp_path / "state")
    with StateReader(job.folder) as state:
        with pytest.raises(StoreError, match="no job in this ledger has params yet; jobs: heart"):
            jobs_with_params(state)
        with pytest.raises(StoreError, match="job heart has no params yet: it is running"):
            record(state, "heart")
        with pytest.raises(StoreError, match="no job 'liver' in this ledger; jobs: heart"):
            record(state, "liver")


# ------------------------------------------------------------------ without some sites


def folded(weight: float) -> Folded:
    update_id = UpdateId(site="mercy", incarnation="0123abcd", sequence=1)
    numbers = {"base_version": 0, "num_examples": 1, "staleness": 0, "clip": 1.0, "norm": 1.0, "at": 0.0}
    return Folded(update_id=update_id, weight=weight, **numbers)


def no_bodies(update_id: UpdateId) -> list[bytes]:
    raise AssertionError(f"nobody needs {update_id} again")


def by_hand(spec: TrainingSpec, commits: list[tuple[int, list[tuple[torch.Tensor, float]], float]]) -> GlobalModel:
    """Commits `(version, [(delta, weight)], normaliser)` on the params a job begins with."""
    model = GlobalModel(
        LAYOUT,
        torch.linspace(-1, 1, LAYOUT.numel),
        make_server_optimizer(spec.server_optimizer),
        down_code=Code(spec.codec.down),
        chunk_bytes=CHUNK_BYTES,
    )
    for version, folds, normaliser in commits:
        for delta, weight in folds:
            model.inspect_(codec.encode(delta, LAYOUT, Code.FP32, chunk_bytes=CHUNK_BYTES, seed=0))
            model.fold_(folded(weight), no_bodies)
        fact = Committed(version=version, update_ids=(), normaliser=normaliser, reason="full", at=0.0)
        deque(model.commit_(fact, no_bodies), maxlen=0)
    return model


@pytest.mark.parametrize("keys", [{}, {"server_optimizer": {"kind": "momentum", "lr": 0.1}, "codec": {"down": "int8"}}])
def test_two_sites_without_one_are_the_commits_of_the_other(tmp_path: Path, keys: dict[str, Any]) -> None:
    job = Job(tmp_path / "state", **keys).begin()
    commits = []
    for version in range(1, 5):
        job.sends("mercy", num_examples=10 * version)
        fold = job.sends("ucsf", num_examples=40)
        commits.append((version, [(delta_of(2 * version), fold.weight)], fold.weight))
    left_out, done = job.without("mercy")
    assert torch.equal(done.model.hidden, by_hand(job.spec, commits).hidden)
    assert (left_out.left_out, left_out.updates, left_out.skipped, left_out.to_version) == (4, 8, 0, 4)


def test_the_strategy_normalises_what_is_left(tmp_path: Path) -> None:
    # given: a strategy that divides by the sum of num_examples^0.5, not by the sum of weights
    strategy = {"kind": "buffered", "buffer": 2, "normalise": "buffer"}
    job = Job(tmp_path / "state", strategy=strategy, staleness={"kind": "polynomial", "a": 1.0}).begin()
    job.sends("mercy", num_examples=4)
    fold = job.sends("ucsf", num_examples=9)
    _, done = job.without("mercy")
    assert torch.equal(done.model.hidden, by_hand(job.spec, [(1, [(delta_of(2), fold.weight)], 3.0)]).hidden)


def test_a_version_of_which_nothing_is_left_is_skipped(tmp_path: Path) -> None:
    job = Job(tmp_path / "state").begin()
    job.sends("mercy"), job.sends("mercy")
    fold, _ = job.sends("ucsf"), job.sends("mercy")
    left_out, done = job.without("mercy")
    assert torch.equal(done.model.hidden, by_hand(job.spec, [(2, [(delta_of(3), fold.weight)], fold.weight)]).hidden)
    assert (left_out.skipped, left_out.to_version) == (1, 2)


def test_without_every_site_the_params_stay_where_they_began(job: Job) -> None:
    left_out, done = job.without("mercy", "ucsf")
    assert torch.equal(done.model.hidden, torch.linspace(-1, 1, LAYOUT.numel))
    assert left_out.groups[0].difference == pytest.approx(left_out.groups[0].moved)


def test_the_movement_is_told_by_parts_of_the_model(job: Job) -> None:
    left_out, done = job.without("mercy")
    assert [(g.group, g.elements) for g in left_out.groups] == [("all", 2017), ("encoder", 2005), ("head", 12)]
    whole, encoder, head = left_out.groups
    began, ended = torch.linspace(-1, 1, LAYOUT.numel), job.keeper.model.hidden
    assert whole.moved == pytest.approx(float((ended - began).norm()), rel=1e-6)
    assert whole.difference == pytest.approx(float((done.model.hidden - ended).norm()), rel=1e-6)
    assert whole.moved**2 == pytest.approx(encoder.moved**2 + head.moved**2, rel=1e-6)


def test_a_site_that_points_against_the_others_is_named(tmp_path: Path) -> None:
    # given: three sites that learn the same thing and a fourth that learns its opposite, twice as fast
    job = Job(tmp_path / "state").begin()
    truth = delta_of(0)
    for _ in range(4):
        for site in ("mercy", "ucsf", "va"):
            job.sends(site, truth + delta_of(job.sent + 1))
        job.sends("wrong", delta_of(job.sent + 1) - 2 * truth)
    # then
    left_out, _ = job.without("va")
    cosines = {share.site: share.cosine for share in left_out.sites}
    assert cosines["wrong"] == pytest.approx(-0.93, abs=0.05)
    assert all(cosine > 0 for site, cosine in cosines.items() if site != "wrong")
    assert left_out.says.startswith("wrong points against the others: cosine -0.9")
    assert [share.site for share in left_out.sites if share.left_out] == ["va"]


def test_contributions_are_what_was_added_to_the_params(job: Job) -> None:
    # given: with the plain optimizer and fp32 downwards, the params are their start and all contributions
    left_out, _ = job.without("mercy")
    folds = [fact for fact in (row.fact for row in job.ledger.facts("heart")) if isinstance(fact, Folded)]
    mercy = sum(
        delta_of(fold.update_id.sequence) * fold.weight / (fold.weight + other.weight)
        for fold, other in zip(folds[::2], folds[1::2], strict=True)
    )
    assert left_out.sites[0].norm == pytest.approx(float(torch.as_tensor(mercy).norm()), rel=1e-5)


def test_two_sites_cannot_say_who_is_wrong(job: Job) -> None:
    left_out, _ = job.without("ucsf")
    mercy, ucsf = left_out.sites
    assert mercy.cosine == pytest.approx(ucsf.cosine)
    assert left_out.says == "with fewer than three sites nobody can say who points against the others"


def test_a_site_that_sent_nothing_is_said_with_those_that_did(job: Job) -> None:
    with pytest.raises(StoreError, match="job heart folded no update of a site 'va'; sites: mercy, ucsf"):
        job.without("va")


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["weight", "bias"], ["bias", "weight"]),
        (["net.0.weight", "net.0.bias", "net.2.weight"], ["net.0", "net.2"]),
        ([f"block.{n}.conv.weight" for n in range(20)], ["block"]),
        ([f"p{n}" for n in range(20)], []),
    ],
    ids=["flat", "layers", "too many layers", "too many names"],
)
def test_parts_of_a_model_are_few(names: list[str], groups: list[str]) -> None:
    layout = Layout.of(TensorSpec(name=name, shape=(2,), dtype="float32") for name in names)
    found = groups_of(layout)
    assert list(found) == ["all", *groups]
    assert all(sum(b - a for a, b in found[g]) for g in found)


# ------------------------------------------------------------------ rules that remember


def remembering(folder: Path, strategy: str = "calibrated", **keys: Any) -> Job:
    """A job of three sites of which one sends rarely; `va` leaves in the middle and comes back."""
    job = Job(folder, strategy=strategy, codec={"down": "fp32"}, clip_to_own_median=None, **keys)
    job.begin()
    for now in range(1, 40):
        job.now = float(now)
        job.aggregation.set_active({"mercy", "ucsf", "va"} - ({"va"} if 15 <= now < 25 else set()), now=job.now)
        for site, period in (("mercy", 1), ("ucsf", 2), ("va", 5)):
            if now % period == 0 and site in job.aggregation.active:
                job.sends(site, num_examples=10 * period)
        if now in {18, 31}:
            if job.aggregation.buffer:
                job.commits()
            job.saves()
    return job


@pytest.mark.parametrize("strategy", ["calibrated", "auto"])
@pytest.mark.parametrize("kept", [True, False])
def test_what_is_remembered_is_replayed_to_the_bit(tmp_path: Path, strategy: str, kept: bool) -> None:
    job = remembering(tmp_path / "state", strategy, keep_updates=kept)
    with StateReader(job.folder) as state:
        verdict, done = verify(state, "heart")
    assert verdict.identical
    assert (verdict.from_version == 0) is kept
    assert {n: t.numpy().tobytes() for n, t in done.model.state().items()} == {
        n: t.numpy().tobytes() for n, t in job.keeper.model.state().items()
    }
    assert "memory" in done.model.state()


def test_without_a_site_what_was_remembered_of_it_is_left_out_too(tmp_path: Path) -> None:
    job = remembering(tmp_path / "state", server_optimizer={"lr": 1.0})
    _, replay = job.without("ucsf")
    expected = torch.linspace(-1, 1, LAYOUT.numel).double() + calibrated_by_hand(job, without="ucsf")
    assert torch.allclose(replay.model.params.double(), expected, atol=1e-4)


def calibrated_by_hand(job: Job, *, without: str) -> torch.Tensor:
    """Where CA2FL leads at the recorded commits, in float64, with what one site sent left out."""
    weights = {"mercy": 10**0.5, "ucsf": 20**0.5, "va": 50**0.5}
    moved = torch.zeros(LAYOUT.numel, dtype=torch.float64)
    memory: dict[str, torch.Tensor] = {}
    for fact in (row.fact for row in job.ledger.facts("heart")):
        if not isinstance(fact, Committed):
            continue
        for site in {term.update_id.site for term in fact.corrections} - {without}:
            del memory[site]
        sent: dict[str, list[torch.Tensor]] = {}
        for update in fact.update_ids:
            if update.site != without:
                sent.setdefault(update.site, []).append(delta_of(update.sequence).double())
        if sent:
            slots = {site: torch.stack(deltas).mean(0) for site, deltas in sent.items()}
            known = memory.keys() | slots.keys()
            total = sum(weights[i] for i in memory)
            mean = sum(weights[i] * h for i, h in memory.items()) / total if memory else torch.zeros(LAYOUT.numel)
            p = {i: weights[i] / sum(weights[j] for j in known) for i in known}
            moved += mean + len(known) / len(slots) * sum(p[i] * (d - memory.get(i, mean)) for i, d in slots.items())
            memory |= slots
    return moved


def test_all_contributions_together_are_how_far_the_params_moved(tmp_path: Path) -> None:
    job = remembering(tmp_path / "state")
    with StateReader(job.folder) as state:
        shares = applied(record(state, "heart"))
    moved = sum(share * delta_of(update.sequence).double() for update, share in shares.items())
    start = torch.linspace(-1, 1, LAYOUT.numel)
    assert torch.allclose((job.keeper.model.params - start).double(), torch.as_tensor(moved), atol=1e-4)


def test_a_damaged_body_that_is_only_remembered_is_named(tmp_path: Path) -> None:
    job = remembering(tmp_path / "state")
    with StateReader(job.folder) as state:
        recording = record(state, "heart")
        folds = recording.folds
        remembered = next(fold for fold in folds if fold.also).also[0].update_id
        folded = [fold.update_id for fold in folds].index(remembered)
        read = 0

        def told() -> None:
            """A body is damaged once it was folded, before it is needed again."""
            nonlocal read
            read += 1
            if read == folded + 1:
                damage(job, remembered)

        replay = Replay(state, recording, told=told)
        with pytest.raises(StoreError, match=rf"job heart: update {remembered} \(.*\) is damaged: "):
            replay.run()


def damage(job: Job, update_id: UpdateId) -> None:
    path = job.spool.found("heart", str(update_id))
    assert path is not None
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
