"""The tensors of one job: the global model, its checkpoints, and replay after a restart. Runs on the compute thread.

commit order   facts in the ledger → commit here → published and confirmed → checkpoint, when it is time
restart        newest checkpoint, then the facts after it, in order: bit-identical params, the same frames again
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fedbus.core.facts import Committed, Fact, Folded, Refused
from fedbus.core.frames import Code
from fedbus.core.jobspec import JobSpec
from fedbus.core.layout import Layout
from fedbus.core.messages import UpdateManifest
from fedbus.errors import DecodeError, LayoutError, StoreError
from fedbus.runtime.faults import Point, Reached, nothing
from fedbus.store.checkpoints import Checkpoint, Checkpoints
from fedbus.store.files import replace_durably
from fedbus.store.ledger import Ledger
from fedbus.store.spool import Spool
from fedbus.tensors.global_model import GlobalModel, Inspection
from fedbus.tensors.params import flatten, layout_of, unflatten
from fedbus.tensors.replica import Replica
from fedbus.tensors.server_optimizer import make_server_optimizer

# Params hardly shrink on the wire. A layout that claims far more than came would cost memory that nobody has sent.
MOST_INFLATED = 100
ALWAYS_ADOPTED_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """What leads from one version to the next: frames for the model log, digest of the hidden params after it."""

    version: int
    frames: list[bytes]
    digest: str


class ModelKeeper:
    """One job's global model. Nothing here is safe to use from two threads."""

    def __init__(
        self,
        job: str,
        spec: JobSpec,
        *,
        ledger: Ledger,
        spool: Spool,
        folder: Path,
        params_dir: Path,
        reached: Reached = nothing,
    ) -> None:
        self._job = job
        self._spec = spec
        self._ledger = ledger
        self._spool = spool
        self._checkpoints = Checkpoints(folder / "checkpoints")
        self._export_path = folder / "final.safetensors"
        self._params_dir = params_dir
        self._reached = reached
        self._model: GlobalModel | None = None
        # updates that the newest checkpoint covers: a fallback to the one before it needs their bodies
        self._covered: list[str] = []
        self._not_covered: list[str] = []

    @property
    def model(self) -> GlobalModel:
        if self._model is None:
            raise StoreError(f"job {self._job} has no params yet")
        return self._model

    def frames(self, update_id: str) -> Iterator[bytes]:
        """The spooled frames of an update, by index."""
        return self._spool.frames(self._job, update_id, self._ledger.chunks(update_id))

    def adopt_initial(self, manifest: UpdateManifest) -> Layout:
        """Take a site's initial params as version 0. Raises DecodeError or LayoutError when they are not usable."""
        layout = Layout.from_dict(manifest.layout or {})
        if layout.digest != manifest.layout_digest:
            raise LayoutError(f"initial params: layout digest {layout.digest}, announced {manifest.layout_digest}")
        came_bytes = sum(length for _, _, length in self._ledger.chunks(manifest.update_id))
        if 4 * layout.numel > max(ALWAYS_ADOPTED_BYTES, MOST_INFLATED * came_bytes):
            raise LayoutError(f"initial params: {came_bytes} bytes came for a layout of {layout.numel} elements")
        replica = Replica(layout)
        replica.load_snapshot_(self.frames(manifest.update_id))
        self.start(layout, replica.flat)
        return layout

    def start_from_file(self, name: str) -> Layout:
        """Take the params of a safetensors file in the params folder as version 0; LayoutError when it is unusable."""
        path = self._params_dir / name
        try:
            params = load_file(path)
        except (OSError, SafetensorError) as exc:
            raise LayoutError(
                f"initial_params: cannot read {path}: {exc}; put the file there or correct the job"
            ) from exc
        layout = layout_of(params)
        self.start(layout, flatten(params, layout))
        return layout

    def start(self, layout: Layout, flat: torch.Tensor) -> None:
        """Begin at version 0 with these params, float32 [numel]; checkpointed at once."""
        if not bool(torch.isfinite(flat).all()):
            raise DecodeError("initial params have NaN or infinite values")
        self._model = GlobalModel(
            layout,
            flat,
            make_server_optimizer(self._spec.server_optimizer),
            down_code=Code(self._spec.codec.down),
            chunk_bytes=self._spec.chunk_bytes,
        )
        self.save(version=0, fact_seq=0)

    def drop(self, update_id: str) -> None:
        """The body of an update is not needed any more."""
        self._forget([update_id])

    def _forget(self, update_ids: list[str]) -> None:
        self._spool.remove(self._job, update_ids)
        self._ledger.forget_chunks(update_ids)

    def export(self) -> Path:
        """Write what the sites hold as safetensors, by name and in the layout's dtypes."""
        params = {name: t.contiguous() for name, t in unflatten(self.model.hidden, self.model.layout).items()}
        try:
            with replace_durably(self._export_path) as beside:
                save_file(params, beside, metadata={"job": self._job, "digest": self.model.digest})
        except SafetensorError as exc:
            raise StoreError(f"cannot write {self._export_path}: {exc}; is the disk full?") from exc
        return self._export_path

    def inspect(self, update_id: str) -> Inspection:
        """Decode an update into the scratch vector and measure it; DecodeError when its body is unusable."""
        return self.model.inspect_(self.frames(update_id))

    def fold(self, fact: Folded) -> None:
        """Fold the update inspected last."""
        self.model.fold_scratch_(fact.weight * fact.clip)
        self._not_covered.append(str(fact.update_id))

    def commit(self, fact: Committed) -> Delta:
        """Make the buffer a version."""
        frames = self.model.commit_(fact.normaliser, _rounding_seed(self._spec.seed, fact.version))
        return Delta(version=fact.version, frames=frames, digest=self.model.digest)

    def save(self, *, version: int, fact_seq: int) -> None:
        """Write a checkpoint; bodies that the one before covers leave the spool. Only right after a commit."""
        arrays = {name: tensor.numpy() for name, tensor in self.model.state().items()}
        self._checkpoints.save(Checkpoint(version=version, fact_seq=fact_seq, digest=self.model.digest, arrays=arrays))
        covered, self._covered, self._not_covered = self._covered, self._not_covered, []
        self._reached(Point.CHECKPOINT)
        self._forget(covered)

    def restore(self, layout: Layout, facts: Iterable[tuple[int, Fact]]) -> Iterator[Delta]:
        """Continue from the newest checkpoint and replay the facts after it; yields every version made again.

        Raises StoreError when no checkpoint can be read.
        """
        fact_seq = self._load_checkpoint(layout)
        for seq, fact in facts:
            match fact:
                case Committed() if seq > fact_seq:
                    yield self.commit(fact)
                case Folded() if seq > fact_seq:
                    self.inspect(str(fact.update_id))
                    self.fold(fact)
                case Refused() if seq > fact_seq:
                    self._not_covered.append(str(fact.update_id))
                case Folded() | Refused():
                    self._covered.append(str(fact.update_id))

    def _load_checkpoint(self, layout: Layout) -> int:
        """Become the newest checkpoint that is whole; returns the last fact in it."""
        for checkpoint in self._checkpoints.newest_first():
            self._model = GlobalModel.restore(
                layout,
                {name: torch.from_numpy(array) for name, array in checkpoint.arrays.items()},
                make_server_optimizer(self._spec.server_optimizer),
                down_code=Code(self._spec.codec.down),
                chunk_bytes=self._spec.chunk_bytes,
            )
            if self._model.digest == checkpoint.digest:
                return checkpoint.fact_seq
        raise StoreError(f"job {self._job}: no checkpoint can be read; restore the state folder from a backup")


def _rounding_seed(job_seed: int, version: int) -> int:
    """Seed of the down code's stochastic rounding: the same in a replay."""
    return (job_seed * 1_000_003 + version) & 0x7FFF_FFFF_FFFF_FFFF
