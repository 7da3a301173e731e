"""A job's params once more, from the facts in its ledger and the bodies that are still there: `fedbus replay`.

    record    what the ledger and the disk hold of a job at one moment, and where a replay can begin
    Replay    the global model, led through the facts as the aggregator led its own; optionally without some sites

See `verification` for what is compared, `leave_out` for what a site has added.

A replay begins at version 0 where the aggregator ran with `keep_updates`, otherwise at the older of its two
checkpoints. It writes nothing and needs no lock, see `fedbus.store.state_reader`: it may run beside the aggregator, as
another user who may only read, and on a copy. Memory: one GlobalModel (four model copies and the optimizer's moments);
bodies are read a frame at a time, checkpoints are mapped. The bits are those of one kind of machine: another kind of
processor or another release of torch may round otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar, assert_never

import torch

from fedbus.core.protocol.frames import Code
from fedbus.core.protocol.layout import Layout
from fedbus.core.protocol.messages import UpdateId
from fedbus.core.rules import robust
from fedbus.core.rules.aggregation import Aggregation
from fedbus.core.rules.facts import Committed, Fact, Folded, Refused, Term
from fedbus.core.rules.memory import Memory
from fedbus.core.rules.strategies import Buffer, strategy_of
from fedbus.core.spec import kinds
from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import DecodeError, ProtocolError, StoreError
from fedbus.store.checkpoints import Checkpoint
from fedbus.store.rows import JobRow
from fedbus.store.state_reader import StateReader
from fedbus.tensors.global_model import GlobalModel
from fedbus.tensors.server_optimizer import make_server_optimizer

# An aggregator that works beside may delete what a replay is about to read; the next try begins where it is then.
TRIES = 3

R = TypeVar("R")
Told = Callable[[], None]
"""Hears of every body that was read."""


def nothing() -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What is known of a job: its facts with their sequence numbers, and `start`, from where they can be replayed.

    checkpoints: oldest first. gone: updates folded before `start` whose bodies are not there any more.
    """

    job: str
    spec: TrainingSpec
    layout: Layout
    facts: tuple[tuple[int, Fact], ...]
    checkpoints: tuple[Checkpoint, ...]
    start: Checkpoint
    gone: int

    @property
    def folds(self) -> list[Folded]:
        """The updates folded after `start`."""
        return [fact for seq, fact in self.facts if seq > self.start.fact_seq and isinstance(fact, Folded)]


def jobs_with_params(state: StateReader) -> list[str]:
    """Ids of the jobs that can be replayed, oldest first. StoreError when there is none."""
    rows = state.ledger.jobs()
    found = [row.job for row in rows if row.layout is not None]
    if not found:
        raise StoreError(f"no job in this ledger has params yet; jobs: {', '.join(r.job for r in rows) or 'none'}")
    return found


def record(state: StateReader, job: str) -> Recording:
    """Read what there is of a job. Raises StoreError when it is unknown, has no params, or its facts do not fit."""
    row = _row(state, job)
    if row.layout is None:
        raise StoreError(f"job {job} has no params yet: it is {row.state}")
    if not isinstance(spec := kinds.parse(row.spec), TrainingSpec):
        raise StoreError(f"job {job} has trained nothing that could be done again: it is of kind {row.spec['kind']}")
    layout = Layout.from_dict(row.layout)
    checkpoints = state.checkpoints(job)  # before the facts: a checkpoint covers only facts that are there by then
    facts = tuple((row.seq, row.fact) for row in state.ledger.facts(job))
    last_gone, gone = _gone(state, job, facts)
    start = next((c for c in checkpoints if c.fact_seq >= last_gone), None)
    if start is None:
        raise StoreError(f"job {job}: no checkpoint is there that has the bodies of all updates after it")
    _check(job, spec, facts)
    return Recording(
        job=job,
        spec=spec,
        layout=layout,
        facts=facts,
        checkpoints=tuple(checkpoints),
        start=start,
        gone=gone,
    )


def with_recording(state: StateReader, job: str, work: Callable[[Recording], R]) -> R:
    """Do `work` on what is there of a job; again, on what is there then, when the aggregator has moved on meanwhile."""
    for _ in range(TRIES - 1):
        before = state.checkpoints(job)
        try:
            return work(record(state, job))
        except StoreError:
            if state.checkpoints(job) == before:
                raise
    return work(record(state, job))


def _row(state: StateReader, job: str) -> JobRow:
    rows = {row.job: row for row in state.ledger.jobs()}
    if job not in rows:
        raise StoreError(f"no job {job!r} in this ledger; jobs: {', '.join(rows) or 'none'}")
    return rows[job]


def _gone(state: StateReader, job: str, facts: Collection[tuple[int, Fact]]) -> tuple[int, int]:
    """The last fact whose update has no body any more (0 when all have), and how many updates have none."""
    seqs = [
        seq for seq, fact in facts if isinstance(fact, Folded) and state.bodies.found(job, str(fact.update_id)) is None
    ]
    return (seqs[-1], len(seqs)) if seqs else (0, 0)


def _check(job: str, spec: TrainingSpec, facts: Collection[tuple[int, Fact]]) -> None:
    """Apply the facts as the aggregator does: no gap, nothing twice, every commit of exactly its buffer."""
    numbers = Aggregation(spec, now=0.0)
    for seq, fact in facts:
        try:
            numbers.apply(fact)
        except ProtocolError as exc:
            raise StoreError(f"job {job}: fact {seq} of the ledger does not fit those before it: {exc}") from exc


class Replay:
    """The global model of a recording, at `recording.start` to begin with. `without`: sites whose folds are left out.

    Without sites, all terms of their updates are left out: of the buffer, and of what is remembered. The others keep
    the weights they were folded with, and commits their step; a commit is normalised by the job's strategy over what is
    left, and one of which nothing is left makes no version. Raises StoreError when the checkpoint or a body is damaged
    or gone.
    """

    def __init__(
        self, state: StateReader, recording: Recording, *, without: Collection[str] = (), told: Told = nothing
    ) -> None:
        self._state = state
        self._recording = recording
        self._without = frozenset(without)
        self._strategy = strategy_of(recording.spec)
        self._told = told
        self._buffer: list[Folded] = []
        self._memory = Memory()
        self._rule = ""
        self._at = recording.start.fact_seq
        for seq, fact in recording.facts:
            if seq <= recording.start.fact_seq:
                self._memory.apply(fact)
                self._rule = fact.rule or self._rule if isinstance(fact, Committed) else self._rule
        # of the sites that are left out, what was remembered at the start goes with the first commit
        known = self._memory.sites
        self._owed = tuple(t for site in sorted(self._without & known.keys()) for t in known[site].negative())
        self._memory.forget(self._without)
        self.model = _model_at(recording.start, recording)
        self.version = recording.start.version
        self.updates = 0
        self.skipped = 0

    def run(self, until: int | None = None) -> None:
        """Apply the facts up to sequence number `until`, all without it."""
        for seq, fact in self._recording.facts:
            if self._at < seq and (until is None or seq <= until):
                self._apply(fact)
                self._at = seq

    def _bodies(self, update_id: UpdateId) -> Iterator[bytes]:
        return frames_of(self._state, self._recording.job, update_id)

    def _apply(self, fact: Fact) -> None:
        match fact:
            case Folded() if fact.update_id.site not in self._without:
                read_delta(self._state, self._recording.job, fact.update_id, self.model.inspect_)
                with damage_named(self._state, self._recording.job, [term.update_id for term in fact.also]):
                    self.model.fold_(fact, self._bodies)
                self._memory.apply(fact)
                self._buffer.append(fact)
                self.updates += 1
                self._told()
            case Committed():
                self.version = fact.version
                self._commit(self._left_of(fact))
                self._rule = fact.rule or self._rule
            case Folded() | Refused():
                pass
            case _:
                assert_never(fact)

    def _left_of(self, fact: Committed) -> Committed:
        """The commit without the sites that are left out: as it was recorded, when none are."""
        entries = tuple(self._buffer)
        corrections = self._of_the_others(fact.corrections)
        left = replace(
            fact,
            update_ids=tuple(e.update_id for e in entries),
            corrections=corrections,
            values=self._of_the_others(fact.values),
            sums_anew=self._of_the_others(fact.sums_anew),
        )
        if not entries or not self._without or not (fact.remembers or len(entries) < len(fact.update_ids)):
            return left
        if fact.combination is not None:
            normaliser, combination = robust.without(fact.combination, entries, self._without)
            return replace(left, normaliser=normaliser, combination=combination)
        view = Buffer(
            entries=entries,
            sites={entry.update_id.site for entry in entries},
            active=frozenset(),
            first_at=None,
            began_at=0.0,
            memory=self._memory,
            rule=self._rule,
        )
        forgotten = {term.update_id.site for term in corrections if term.factor < 0}
        normaliser, memory = self._strategy.coefficients(view, forgotten=forgotten)
        return replace(left, normaliser=normaliser, memory=memory)

    def _of_the_others(self, terms: Iterable[Term]) -> tuple[Term, ...]:
        return tuple(term for term in terms if term.update_id.site not in self._without)

    def _commit(self, fact: Committed) -> None:
        self._buffer = []
        self._memory.apply(fact)
        fact = replace(fact, corrections=(*self._owed, *fact.corrections))
        if not fact.update_ids:
            self.skipped += 1
            self._owed = fact.corrections
            return
        self._owed = ()
        read = (*fact.corrections, *fact.values, *fact.sums_anew)
        with damage_named(self._state, self._recording.job, [term.update_id for term in read]):
            frames = self.model.commit_(fact, self._bodies)
        for _ in frames:
            pass  # the model goes as far as its frames are taken


def read_delta(state: StateReader, job: str, update_id: UpdateId, decode: Callable[..., object]) -> None:
    """Give the frames of an update to `decode`; StoreError names the update and its file when they are damaged."""
    with damage_named(state, job, [update_id]):
        decode(frames_of(state, job, update_id))


def frames_of(state: StateReader, job: str, update_id: UpdateId) -> Iterator[bytes]:
    """The frames of an update, wherever they lie now."""
    name = str(update_id)
    return state.bodies.frames(job, name, state.ledger.chunks(job, name))


@contextmanager
def damage_named(state: StateReader, job: str, update_ids: Collection[UpdateId]) -> Iterator[None]:
    """Say which updates were read, and where, when one of them cannot be decoded: as StoreError."""
    try:
        yield
    except DecodeError as exc:
        places = ((str(u), state.bodies.found(job, str(u)) or "its body is gone") for u in update_ids)
        updates = ", ".join(f"{name} ({where})" for name, where in places)
        raise StoreError(f"job {job}: update {updates} is damaged: {exc}") from exc


def _model_at(checkpoint: Checkpoint, recording: Recording) -> GlobalModel:
    spec = recording.spec
    model = GlobalModel.restore(
        recording.layout,
        {name: torch.from_numpy(array) for name, array in checkpoint.read().items()},
        make_server_optimizer(spec.server_optimizer),
        down_code=Code(spec.codec.down),
        chunk_bytes=spec.chunk_bytes,
    )
    if model.digest != checkpoint.digest:
        raise StoreError(
            f"checkpoint {checkpoint.path} is damaged: its hidden params have digest {model.digest}, they were written "
            f"with {checkpoint.digest}"
        )
    return model
