"""The tensors of one job: the global model, its checkpoints, and replay after a restart. Runs on the compute thread.

commit order   facts in the ledger → commit here → published and confirmed → checkpoint, when it is time
restart        newest checkpoint, then the facts after it, in order: bit-identical params, the same frames again

Nothing of the model's size is made here beside `GlobalModel`'s own copies: frames and files pass piece by piece.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from fedbus.aggregator.incoming.room import available_bytes, check_room
from fedbus.aggregator.model import bodies
from fedbus.aggregator.trouble import body_errors
from fedbus.core.protocol.frames import Code
from fedbus.core.protocol.layout import Layout
from fedbus.core.protocol.messages import UpdateId, UpdateManifest
from fedbus.core.rules.facts import Combination, Committed, Fact, Folded, Refused
from fedbus.core.rules.memory import Memory
from fedbus.core.spec.training import AutoSpec, TrainingSpec
from fedbus.errors import DecodeError, DiskFullError, LayoutError, StoreError
from fedbus.export.params_file import read_params, write_params
from fedbus.runtime.faults import Point, Reached, nothing
from fedbus.store.checkpoints import Checkpoint, Checkpoints
from fedbus.store.ledger import Ledger
from fedbus.store.spool import Spool
from fedbus.tensors.codec import decode_all_
from fedbus.tensors.global_model import GlobalModel, Inspection
from fedbus.tensors.server_optimizer import make_server_optimizer
from fedbus.tensors.tiles import tiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A delta or a snapshot on its way to the model log: `count` frames, each made when it is taken, once.

    The model can do nothing else until all frames of a delta are taken; its digest is that of the version from then on.
    """

    version: int
    count: int
    frames: Iterator[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """A checkpoint to be written, on any thread: what it holds changes with a commit alone, folds leave it as it is."""

    version: int
    fact_seq: int
    model: GlobalModel
    checkpoints: Checkpoints
    put_away: Callable[[], None]

    def write(self, *, read: Callable[[], object] = lambda: None) -> Path:
        """Write it durably; then bodies of no use since the one before leave the spool.

        `read` is called once the model may be committed again. Raises DiskFullError only before that: then it may be
        tried again.
        """
        was_read = False

        def all_read() -> None:
            nonlocal was_read
            was_read = True
            read()

        arrays = {name: tensor.numpy() for name, tensor in self.model.state().items()}
        try:
            path = self.checkpoints.save(
                version=self.version, fact_seq=self.fact_seq, digest=self.model.digest, arrays=arrays, read=all_read
            )
        except DiskFullError as exc:
            if was_read:
                raise StoreError(f"checkpoint of version {self.version}: {exc}") from exc
            raise
        self.put_away()
        return path


def announced_layout(manifest: UpdateManifest) -> Layout:
    """The layout that the manifest of initial params brings. Raises LayoutError unless it is the one announced."""
    layout = Layout.from_dict(manifest.layout or {})
    if layout.digest != manifest.layout_digest:
        raise LayoutError(f"initial params: layout digest {layout.digest}, announced {manifest.layout_digest}")
    return layout


class ModelKeeper:
    """One job's global model. Nothing here is safe to use from two threads; but see `Saving`."""

    def __init__(
        self,
        job: str,
        spec: TrainingSpec,
        *,
        ledger: Ledger,
        spool: Spool,
        folder: Path,
        reached: Reached = nothing,
    ) -> None:
        self._job = job
        self._spec = spec
        self._ledger = ledger
        self._spool = spool
        self._checkpoints = Checkpoints(folder / "checkpoints")
        self._export_path = folder / "final.safetensors"
        self._reached = reached
        self._model: GlobalModel | None = None
        # updates that nothing after the newest checkpoint needs: a fallback to the one before it needs their bodies
        self._covered: list[str] = []
        self._saved: int | None = None  # the version of the newest checkpoint
        self._not_covered: list[str] = []
        self._memory = Memory()

    @property
    def best_folder(self) -> Path:
        """Where versions are kept that may be the best."""
        return self._export_path.with_name("best")

    @property
    def model(self) -> GlobalModel:
        if self._model is None:
            raise StoreError(f"job {self._job} has no params yet")
        return self._model

    def frames(self, update_id: str) -> Iterator[bytes]:
        """The spooled frames of an update, by index."""
        return self._spool.frames(self._job, update_id, self._ledger.chunks(self._job, update_id))

    def _bodies(self, update_id: UpdateId) -> Iterator[bytes]:
        return self.frames(str(update_id))

    def adopt_initial(self, manifest: UpdateManifest) -> Layout:
        """Take a site's initial params as version 0. Raises DecodeError or LayoutError when they are not usable."""
        layout = self._announced(manifest)
        flat = torch.empty(layout.numel)
        with body_errors():
            decode_all_(flat, self.frames(manifest.update_id), layout)
        self.start(layout, flat)
        return layout

    def adopt_file(self, manifest: UpdateManifest, path: Path) -> Layout:
        """Take a safetensors file as version 0, in the layout that a site's task makes.

        The file knows neither what is learnt nor which names are one tensor. Raises LayoutError, which says why it is
        not usable.
        """
        layout = self._announced(manifest)
        try:
            flat = read_params(path, layout, extra=self._spec.keeps_some)
        except StoreError as exc:
            raise LayoutError(str(exc)) from exc
        self.start(layout, flat)
        return layout

    def _announced(self, manifest: UpdateManifest) -> Layout:
        """The layout that a site says its task makes."""
        layout = announced_layout(manifest)
        self._model = None  # what a start that met a full disk has left
        check_room(layout, available_bytes=available_bytes())
        return layout

    def start(self, layout: Layout, flat: torch.Tensor) -> None:
        """Begin at version 0 with these params, float32 [numel], which become the model's; checkpointed at once."""
        if not all(bool(torch.isfinite(part).all()) for (part,) in tiles(flat)):
            raise DecodeError("initial params have NaN or infinite values")
        self._model = GlobalModel(
            layout,
            flat,
            make_server_optimizer(self._spec.server_optimizer),
            down_code=Code(self._spec.codec.down),
            chunk_bytes=self._spec.chunk_bytes,
        )
        self._spool.keep_start(self._job, self.save(version=0, fact_seq=0))

    def drop(self, update_id: str) -> None:
        """The body of an update is not needed any more."""
        bodies.delete(self._job, [update_id], ledger=self._ledger, spool=self._spool)

    def export(self) -> Path:
        """Write what the sites hold as safetensors, by name and in the layout's dtypes."""
        self._write(self._export_path, durably=True)
        return self._export_path

    def write(self, path: Path) -> None:
        """Write what the sites hold at the newest version to a file, as `export` does, but not durably."""
        self._write(path, durably=False)

    def _write(self, path: Path, *, durably: bool) -> None:
        metadata = {"job": self._job, "digest": self.model.digest}
        write_params(path, self.model.hidden, self.model.layout, metadata, durably=durably)

    def inspect(self, update_id: str) -> Inspection:
        """Decode an update into the scratch vector and measure it; DecodeError when its body is unusable."""
        return self.model.inspect_(self.frames(update_id))

    def fold(self, fact: Folded) -> None:
        """Fold the update inspected last."""
        self.model.fold_(fact, self._bodies)
        self._note(fact)

    def gram(self, combination: Combination) -> list[list[float]]:
        """Return the inner products [K, K] of what a commit combines; changes nothing."""
        return self.model.gram(combination, self._bodies)

    def commit(self, fact: Committed) -> Outgoing:
        """Make the buffer a version; what leads to it from the one before."""
        frames = self.model.commit_(fact, self._bodies)
        self._note(fact)
        return Outgoing(version=fact.version, count=self.model.delta_frames, frames=frames)

    def snapshot(self, version: int) -> Outgoing:
        """What the sites hold at `version`, the newest one."""
        return Outgoing(version=version, count=self.model.snapshot_frames, frames=self.model.snapshot())

    @property
    def spare(self) -> torch.Tensor:
        """See `GlobalModel.spare`."""
        return self.model.spare

    def digest(self) -> str:
        """Of what the sites hold at the newest version."""
        return self.model.digest

    def save(self, *, version: int, fact_seq: int) -> Path:
        """Write a checkpoint; bodies of no use since the one before leave the spool. Only right after a commit."""
        return self.begin_save(version=version, fact_seq=fact_seq).write()

    def begin_save(self, *, version: int, fact_seq: int) -> Saving:
        """The checkpoint that is to be written now. Only right after a commit; until it is read, not another one."""
        covered, done = self._covered, self._no_longer_needed()
        if version == self._saved:  # it takes the place of the newest one, and the one before that stays
            covered, done = [], [*covered, *done]
        self._covered, self._saved = done, version
        return Saving(
            version=version,
            fact_seq=fact_seq,
            model=self.model,
            checkpoints=self._checkpoints,
            put_away=partial(self._put_away, covered),
        )

    def _put_away(self, covered: list[str]) -> None:
        self._reached(Point.CHECKPOINT)
        bodies.put_away(self._job, covered, ledger=self._ledger, spool=self._spool)

    def _note(self, fact: Folded | Committed) -> None:
        self._memory.apply(fact)
        if isinstance(fact, Folded):
            self._not_covered.append(str(fact.update_id))

    def _no_longer_needed(self) -> list[str]:
        """Updates that no later fact can refer to, from now on no more counted as not covered."""
        # a later version takes the values of every site's last update, see `core.rules.values`
        last = isinstance(self._spec.strategy, AutoSpec) or self.model.layout.value_numel > 0
        needed = set(map(str, self._memory.needed(last=last)))
        done = [update for update in self._not_covered if update not in needed]
        self._not_covered = [update for update in self._not_covered if update in needed]
        return done

    def restore(self, layout: Layout, facts: Iterable[tuple[int, Fact]]) -> Iterator[Outgoing]:
        """Continue from the newest checkpoint and replay the facts after it; yields every version made again.

        Frames that were not taken when the next version is asked for are made and dropped. Raises StoreError when no
        checkpoint can be read.
        """
        fact_seq = self._load_checkpoint(layout)
        *_, oldest = self._checkpoints.newest_first()
        self._spool.keep_start(self._job, oldest.path)
        facts = list(facts)
        refused = [str(fact.update_id) for _, fact in facts if isinstance(fact, Refused)]
        for seq, fact in facts:
            if seq <= fact_seq and not isinstance(fact, Refused):
                self._note(fact)
        self._covered = self._no_longer_needed()
        for seq, fact in facts:
            match fact:
                case Committed() if seq > fact_seq:
                    delta = self.commit(fact)
                    yield delta
                    deque(delta.frames, maxlen=0)
                case Folded() if seq > fact_seq:
                    self.inspect(str(fact.update_id))
                    self.fold(fact)
                case _:
                    pass
        bodies.delete(self._job, refused, ledger=self._ledger, spool=self._spool)  # a kill may have left some

    def _load_checkpoint(self, layout: Layout) -> int:
        """Become the newest checkpoint that is whole; returns the last fact in it."""
        for checkpoint in self._checkpoints.newest_first():
            self._model = None  # it makes room: a damaged one and the one before are never held together
            with suppress(StoreError):
                self._model = self._read(checkpoint, layout)
                if self._model.digest == checkpoint.digest:
                    self._saved = checkpoint.version
                    return checkpoint.fact_seq
        raise StoreError(f"job {self._job}: no checkpoint can be read; restore the state folder from a backup")

    def _read(self, checkpoint: Checkpoint, layout: Layout) -> GlobalModel:
        return GlobalModel.restore(
            layout,
            {name: torch.from_numpy(array) for name, array in checkpoint.read().items()},
            make_server_optimizer(self._spec.server_optimizer),
            down_code=Code(self._spec.codec.down),
            chunk_bytes=self._spec.chunk_bytes,
        )
