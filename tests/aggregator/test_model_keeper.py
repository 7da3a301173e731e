"""The tensors of a job: a keeper that was killed anywhere and restored is one that was never killed, bit for bit."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fedbus.aggregator.model.keeper import ModelKeeper, Outgoing
from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.frames import Code
from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.core.protocol.messages import Chunk, UpdateId, UpdateKind, UpdateManifest
from fedbus.core.rules.facts import Committed, Folded, Refused
from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import DecodeError, DiskFullError, LayoutError, StoreError
from fedbus.store.checkpoints import Checkpoints, read_head
from fedbus.store.ledger import Ledger
from fedbus.store.spool import Spool
from fedbus.tensors import codec

LAYOUT = Layout.of(
    [
        TensorSpec(name="weight", shape=(40, 50), dtype="float32"),
        TensorSpec(name="bias", shape=(5,), dtype="float16"),
    ]
)
CHUNK_BYTES = 256 * 1024
# What happens in a job: an update folded or refused, a version committed, a checkpoint.
STORY = ("fold", "fold", "commit", "refuse", "fold", "fold", "commit", "save", "fold", "refuse", "fold", "commit")
STORY += ("fold", "fold", "commit", "save", "fold", "fold", "commit", "fold", "fold", "commit", "fold")


def spec(**keys: Any) -> TrainingSpec:
    local = {"steps": 1, "batch_size": 1, "learning_rate": 0.1}
    return TrainingSpec.parse(
        {"name": "heart", "task": "t", "seed": 3, "local": local, "stop": {"versions": 9}, "chunk_bytes": CHUNK_BYTES}
        | {"strategy": "buffered"}
        | keys
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A version as it would have been published."""

    frames: list[bytes]
    digest: str


class Life:
    """A job's ledger, spool and keeper in one folder; a new Life in the same folder is the aggregator restarted."""

    def __init__(self, folder: Path, job: TrainingSpec) -> None:
        self.ledger = Ledger(folder / "ledger.sqlite3")
        self.spool = Spool(folder / "spool")
        self.job = job
        self.folder = folder / "job"
        (folder / "params").mkdir(exist_ok=True)
        self.params_dir = folder / "params"
        self.keeper = ModelKeeper("heart", job, ledger=self.ledger, spool=self.spool, folder=self.folder)
        self.made: dict[int, Made] = {}

    def begin(self) -> None:
        self.keeper.start(LAYOUT, torch.linspace(-1, 1, LAYOUT.numel))

    def restore(self) -> None:
        facts = [(row.seq, row.fact) for row in self.ledger.facts("heart")]
        for delta in self.keeper.restore(LAYOUT, facts):
            self.make(delta)

    def make(self, delta: Outgoing) -> None:
        """Take all frames of a version."""
        frames = list(delta.frames)
        assert len(frames) == delta.count
        self.made[delta.version] = Made(frames=frames, digest=self.keeper.digest())

    def put(self, update_id: str, frames: list[bytes]) -> None:
        chunks = [
            Chunk(job="heart", transfer=update_id, part="update", index=i, count=len(frames), body=frame)
            for i, frame in enumerate(frames)
        ]
        self.ledger.record_arrivals(self.spool.append(chunks), [], at=0.0)

    def arrives(self, number: int) -> UpdateId:
        """Update `number`, the same in every life."""
        update_id = UpdateId(site="mercy", incarnation="0123abcd", sequence=number)
        delta = torch.randn(LAYOUT.numel, generator=torch.Generator().manual_seed(number))
        if not self.ledger.chunks("heart", str(update_id)):
            self.put(str(update_id), list(codec.encode(delta, LAYOUT, Code.FP16, chunk_bytes=CHUNK_BYTES, seed=number)))
        return update_id

    def record(self, fact: Folded | Refused | Committed) -> None:
        self.ledger.record_facts("heart", [fact], at=time.time())

    def step(self, number: int, *, killed_after_record: bool = False) -> None:
        """Do what the story says at `number`; optionally only as far as the ledger."""
        what = STORY[number]
        version = STORY[:number].count("commit")
        match what:
            case "fold":
                update_id = self.arrives(number)
                fact = Folded(
                    update_id=update_id,
                    base_version=version,
                    num_examples=10,
                    staleness=0,
                    weight=1 / (number + 1),
                    clip=0.9,
                    norm=1.0,
                    at=0.0,
                )
                self.keeper.inspect(str(update_id))
                self.record(fact)
                if not killed_after_record:
                    self.keeper.fold(fact)
            case "refuse":
                update_id = self.arrives(number)
                self.record(Refused(update_id=update_id, reason="stale"))
                if not killed_after_record:
                    self.keeper.drop(str(update_id))
            case "commit":
                committed = Committed(version=version + 1, update_ids=(), normaliser=0.7, reason="full", at=0.0)
                self.record(committed)
                if not killed_after_record:
                    self.make(self.keeper.commit(committed))
            case "save":
                self.keeper.save(version=version, fact_seq=self.ledger.facts("heart")[-1].seq)

    def bits(self) -> dict[str, bytes]:
        return {name: tensor.numpy().tobytes() for name, tensor in self.keeper.model.state().items()}

    def bodies(self) -> list[int]:
        """Numbers of the updates whose bodies lie in the spool."""
        return sorted(int(path.name.split(".")[2]) for path in (self.spool.path("heart", "x").parent).glob("*.frames"))


def never_killed(folder: Path, job: TrainingSpec) -> Life:
    folder.mkdir()
    life = Life(folder, job)
    life.begin()
    for number in range(len(STORY)):
        life.step(number)
    return life


def test_what_is_folded_while_a_checkpoint_is_written_is_no_part_of_it(life: Life) -> None:
    # given a version that is to be saved
    life.begin()
    first_commit = STORY.index("commit")
    for number in range(first_commit + 1):
        life.step(number)
    saving = life.keeper.begin_save(version=1, fact_seq=life.ledger.facts("heart")[-1].seq)
    expected = life.bits()
    # when updates are folded before it is written
    for number in range(100, 103):
        update_id = life.arrives(number)
        life.keeper.inspect(str(update_id))
        life.keeper.fold(
            Folded(
                update_id=update_id, base_version=1, num_examples=9, staleness=0, weight=1.0, clip=1.0, norm=1.0, at=0.0
            )
        )
    path = saving.write()
    # then the file holds the version as it was
    found = {name: array.tobytes() for name, array in read_head(path).read().items()}
    assert found == expected


@pytest.mark.parametrize("was_read", [False, True])
def test_a_checkpoint_that_finds_no_room_is_tried_again_only_while_the_model_stands_still(
    life: Life, was_read: bool
) -> None:
    life.begin()
    full = FullCheckpoints(was_read=was_read)
    saving = dataclasses.replace(life.keeper.begin_save(version=0, fact_seq=0), checkpoints=full)
    with pytest.raises(StoreError, match="the disk is full") as raised:
        saving.write()
    assert isinstance(raised.value, DiskFullError) is not was_read


class FullCheckpoints(Checkpoints):
    """A disk that is full before or after the arrays were read."""

    def __init__(self, *, was_read: bool) -> None:
        self.was_read = was_read

    def save(self, *, read: Callable[[], object] = lambda: None, **_: Any) -> Path:
        if self.was_read:
            read()
        raise DiskFullError("the disk is full")


def killed_and_restored(folder: Path, job: TrainingSpec, at: int, *, after_record: bool) -> Life:
    folder.mkdir()
    before = Life(folder, job)
    before.begin()
    for number in range(at):
        before.step(number)
    before.step(at, killed_after_record=after_record)
    after = Life(folder, job)
    after.restore()
    for number in range(at + 1, len(STORY)):
        after.step(number)
    after.made = before.made | after.made
    return after


@pytest.fixture
def life(tmp_path: Path) -> Life:
    return Life(tmp_path, spec())


# ------------------------------------------------------------------ restore


@pytest.mark.parametrize("at", range(len(STORY)), ids=[f"{n}-{what}" for n, what in enumerate(STORY)])
def test_killed_after_any_step_it_goes_on_bit_for_bit(tmp_path: Path, at: int) -> None:
    job = spec(codec={"up": "fp16", "down": "int8"}, server_optimizer={"kind": "adam", "lr": 0.1})
    expected = never_killed(tmp_path / "never", job)
    found = killed_and_restored(tmp_path / "killed", job, at, after_record=False)
    assert found.made == expected.made
    assert found.bits() == expected.bits()


@pytest.mark.parametrize("at", [n for n, what in enumerate(STORY) if what != "save"])
def test_killed_between_the_fact_and_the_deed_it_goes_on_bit_for_bit(tmp_path: Path, at: int) -> None:
    job = spec(codec={"up": "fp16", "down": "int8"}, server_optimizer={"kind": "adam", "lr": 0.1})
    expected = never_killed(tmp_path / "never", job)
    found = killed_and_restored(tmp_path / "killed", job, at, after_record=True)
    assert found.made == expected.made
    assert found.bits() == expected.bits()


@pytest.mark.parametrize("kind", ["plain", "momentum", "adam", "yogi"])
@pytest.mark.parametrize("down", ["fp32", "int8"])
def test_every_server_optimizer_and_down_code_is_restored(tmp_path: Path, kind: str, down: str) -> None:
    job = spec(server_optimizer={"kind": kind}, codec={"down": down})
    expected = never_killed(tmp_path / "never", job)
    found = killed_and_restored(tmp_path / "killed", job, 16, after_record=False)
    assert found.made == expected.made
    assert found.bits() == expected.bits()


def test_killed_many_times_it_is_still_the_same(tmp_path: Path) -> None:
    expected = never_killed(tmp_path / "never", spec())
    folder = tmp_path / "killed"
    folder.mkdir()
    life = Life(folder, spec())
    life.begin()
    for number in range(len(STORY)):
        life.step(number)
        life = Life(folder, spec())
        life.restore()
    assert life.bits() == expected.bits()


def test_only_versions_after_the_checkpoint_are_made_again(tmp_path: Path) -> None:
    never_killed(tmp_path / "life", spec())
    again = Life(tmp_path / "life", spec())
    again.restore()
    assert sorted(again.made) == [5, 6]


def test_versions_that_nobody_wants_again_are_replayed_without_their_frames(tmp_path: Path) -> None:
    expected = never_killed(tmp_path / "life", spec(codec={"down": "int8"}))
    again = Life(tmp_path / "life", spec(codec={"down": "int8"}))
    facts = [(row.seq, row.fact) for row in again.ledger.facts("heart")]
    versions = [delta.version for delta in again.keeper.restore(LAYOUT, facts)]
    assert versions == [5, 6]
    assert again.bits() == expected.bits()


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_newest_checkpoint_falls_back_and_gives_the_same_bits(tmp_path: Path, damage: str) -> None:
    expected = never_killed(tmp_path / "life", spec())
    newest = sorted((tmp_path / "life" / "job" / "checkpoints").iterdir())[-1]
    content = newest.read_bytes()
    match damage:
        case "cut":
            newest.write_bytes(content[: len(content) // 2])
        case "flipped":
            # the last bytes are those of params or hidden: flip some in each
            middle = len(content) - 3 * LAYOUT.numel
            flipped = bytearray(content)
            for at in (middle, len(content) - LAYOUT.numel * 6):
                flipped[at] ^= 0x40
            newest.write_bytes(bytes(flipped))
        case "gone":
            newest.unlink()
    again = Life(tmp_path / "life", spec())
    again.restore()
    assert sorted(again.made) == [3, 4, 5, 6]
    assert again.bits() == expected.bits()
    assert {v: again.made[v] for v in (5, 6)} == {v: expected.made[v] for v in (5, 6)}


def test_without_any_checkpoint_it_says_what_to_do(life: Life) -> None:
    with pytest.raises(StoreError, match="no checkpoint can be read; restore the state folder from a backup"):
        life.restore()


def test_a_body_that_is_gone_is_an_error_of_the_store(tmp_path: Path) -> None:
    life = never_killed(tmp_path / "life", spec())
    life.spool.remove_job("heart")
    with pytest.raises(StoreError, match="cannot read spooled update"):
        Life(tmp_path / "life", spec()).restore()


# ------------------------------------------------------------------ bodies in the spool


def test_bodies_stay_until_two_checkpoints_cover_them(life: Life) -> None:
    life.begin()
    for number in range(8):
        life.step(number)
    assert life.bodies() == [0, 1, 4, 5]
    for number in range(8, 16):
        life.step(number)
    assert life.bodies() == [8, 10, 12, 13]
    assert life.ledger.chunks("heart", "mercy:0123abcd:0") == []
    assert life.ledger.chunks("heart", "mercy:0123abcd:8") != []


def test_a_checkpoint_that_is_written_again_takes_no_body_from_the_one_before(tmp_path: Path) -> None:
    # given two checkpoints, and the bodies that a fallback to the first of them needs
    (tmp_path / "life").mkdir()
    life = Life(tmp_path / "life", spec())
    life.begin()
    for number in range(16):
        life.step(number)
    needed, seq = life.bodies(), life.ledger.facts("heart")[-1].seq
    # when the second is written again, as at the end of a job, also after a restart
    life.keeper.save(version=4, fact_seq=seq)
    again = Life(tmp_path / "life", spec())
    again.restore()
    again.keeper.save(version=4, fact_seq=seq)
    # then they are there still
    assert again.bodies() == needed


def test_bodies_that_a_kill_left_behind_leave_with_the_next_checkpoint(tmp_path: Path) -> None:
    # given: killed right after a checkpoint was written, before old bodies were removed
    folder = tmp_path / "life"
    never_killed(folder, spec())
    left = Life(folder, spec())
    left.arrives(0)
    assert 0 in left.bodies()
    # when
    left.restore()
    left.keeper.save(version=6, fact_seq=left.ledger.facts("heart")[-1].seq)
    # then: only what that checkpoint covers and the one before does not
    assert left.bodies() == [16, 17, 19, 20, 22]


def test_a_refused_body_leaves_at_once(life: Life) -> None:
    life.begin()
    update_id = life.arrives(3)
    life.keeper.drop(str(update_id))
    assert life.bodies() == []
    assert life.ledger.chunks("heart", str(update_id)) == []


# ------------------------------------------------------------------ the first params


def initial(life: Life, flat: torch.Tensor, own: Layout = LAYOUT, **changes: Any) -> UpdateManifest:
    update_id = "mercy:0123abcd:0"
    frames = list(codec.encode(flat, own, Code.FP32, chunk_bytes=CHUNK_BYTES, seed=0))
    life.put(update_id, frames)
    manifest = UpdateManifest(
        job="heart",
        update_id=update_id,
        kind=UpdateKind.INITIAL,
        base_version=0,
        effort=Effort(num_examples=1),
        layout_digest=LAYOUT.digest,
        frames=len(frames),
        body_bytes=sum(map(len, frames)),
        layout=LAYOUT.to_dict(),
    )
    return dataclasses.replace(manifest, **changes)


def test_a_sites_initial_params_become_version_0_exactly_and_survive_a_kill(life: Life, tmp_path: Path) -> None:
    flat = torch.randn(LAYOUT.numel, generator=torch.Generator().manual_seed(1))
    assert life.keeper.adopt_initial(initial(life, flat)) == LAYOUT
    assert torch.equal(life.keeper.model.params, flat)
    again = Life(tmp_path, spec())
    again.restore()
    assert again.bits() == life.bits()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"layout": None}, DecodeError),
        ({"layout": {"tensors": [["w", [-1], "float32"]]}}, DecodeError),
        ({"layout_digest": "another"}, LayoutError),
        (
            {
                "layout": Layout.of([TensorSpec(name="w", shape=(3000,), dtype="float32")]).to_dict(),
                "layout_digest": Layout.of([TensorSpec(name="w", shape=(3000,), dtype="float32")]).digest,
            },
            DecodeError,
        ),
    ],
    ids=["no layout", "bad layout", "another digest", "another size"],
)
def test_initial_params_that_do_not_fit_their_layout_are_refused(
    life: Life, changes: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        life.keeper.adopt_initial(initial(life, torch.zeros(LAYOUT.numel), **changes))
    with pytest.raises(StoreError, match="job heart has no params yet"):
        _ = life.keeper.model


def test_a_layout_that_claims_more_than_this_machine_has_costs_no_memory(life: Life) -> None:
    claimed = Layout.of([TensorSpec(name="w", shape=(10**11,), dtype="float32")])
    manifest = initial(life, torch.zeros(LAYOUT.numel), layout=claimed.to_dict(), layout_digest=claimed.digest)
    with pytest.raises(LayoutError, match=r"of 100,000,000,000 elements needs 1862\.6 GiB of memory at the aggregator"):
        life.keeper.adopt_initial(manifest)


def test_a_large_model_that_is_all_zeros_is_a_model(tmp_path: Path) -> None:
    """A fresh head, LoRA's B: it takes next to nothing on the wire."""
    zeros = Layout.of([TensorSpec(name="w", shape=(20 << 20,), dtype="float32")])
    life = Life(tmp_path, spec())
    changes = {"layout": zeros.to_dict(), "layout_digest": zeros.digest}
    manifest = dataclasses.replace(initial(life, torch.zeros(zeros.numel), zeros), **changes)
    assert manifest.body_bytes < zeros.numel // 100
    assert life.keeper.adopt_initial(manifest) == zeros


def test_initial_params_that_are_not_finite_are_refused(life: Life) -> None:
    flat = torch.zeros(LAYOUT.numel)
    flat[7] = float("nan")
    with pytest.raises(DecodeError, match="NaN or infinite"):
        life.keeper.adopt_initial(initial(life, flat))


def test_a_file_becomes_version_0_in_the_layout_of_the_task(life: Life) -> None:
    params = {"weight": torch.randn(40, 50), "bias": torch.randn(5).half(), "steps": torch.tensor(3)}
    save_file(params, life.params_dir / "pretrained.safetensors")
    manifest = initial(life, torch.zeros(LAYOUT.numel))
    assert life.keeper.adopt_file(manifest, life.params_dir / "pretrained.safetensors") == LAYOUT
    assert torch.equal(life.keeper.model.params[5:], params["weight"].reshape(-1))


# ------------------------------------------------------------------ the result


def exports(life: Life) -> Iterator[tuple[str, torch.Tensor]]:
    yield from sorted(load_file(life.keeper.export()).items())


def test_the_export_holds_what_the_sites_hold_by_name_in_the_dtypes_of_the_job(tmp_path: Path) -> None:
    life = never_killed(tmp_path / "life", spec(codec={"down": "int8"}))
    found = dict(exports(life))
    assert {name: (tuple(t.shape), t.dtype) for name, t in found.items()} == {
        "weight": ((40, 50), torch.float32),
        "bias": ((5,), torch.float16),
    }
    assert torch.equal(found["weight"].reshape(-1), life.keeper.model.hidden[5:])
    assert torch.equal(found["bias"], life.keeper.model.hidden[:5].half())
