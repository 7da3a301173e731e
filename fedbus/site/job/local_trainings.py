"""The trainings of one job at a site: from which version each begins, with how many steps, and what becomes of it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

from fedbus.core.job.seeds import training_seed
from fedbus.core.protocol import messages as m
from fedbus.core.spec.training import SyncSpec, TrainingSpec
from fedbus.runtime.metrics import ENCODE_S, TRAIN_S
from fedbus.runtime.telemetry import Telemetry
from fedbus.runtime.tracing import ENCODE, TRAIN, UPDATE
from fedbus.site.job import assignment
from fedbus.site.job.local_model import LocalModel
from fedbus.site.job.model_files import Held
from fedbus.site.job.trainer import Trainer
from fedbus.site.settings import SiteSettings
from fedbus.site.trainer_errors import TrainerDiedError
from fedbus.store.outbox import Outbox
from fedbus.store.residuals import Source
from fedbus.training import protocol as p

Put = Callable[[m.UpdateManifest, tuple[int, ...], Source | None], None]


class LocalTrainings:
    """Of one job, by its spec. `put` commits an update to the outbox.

    base: what the training that runs began from; None while none runs. oldest_base: the oldest version that is worth
    training from. trained_from: the version of the last training, -1: there was none.
    """

    def __init__(
        self,
        job: str,
        spec: TrainingSpec,
        *,
        settings: SiteSettings,
        outbox: Outbox,
        put: Put,
        telemetry: Telemetry,
    ) -> None:
        self.spec = spec
        self.base: Held | None = None
        self.oldest_base = 0
        # what an earlier daemon trained from counts too: a synchronous site trains once from each version
        self.trained_from = max((e.manifest.base_version for e in outbox.entries()), default=-1)
        self.waits_for_new = isinstance(spec.strategy, SyncSpec)
        self._job = job
        self._outbox = outbox
        self._put = put
        self._telemetry = telemetry
        self._local = LocalModel(outbox.folder if spec.evaluate_local and settings.share_local_model else None)
        self._steps: int | None = None
        self._forgets_residual = False

    @property
    def next_steps(self) -> int | None:
        """Local steps of the next training; None where its budget is none of steps."""
        return self._steps or self.spec.local.steps

    def set_steps(self, steps: int) -> None:
        """Make so many local steps in every training that begins from now on, in a job that is time-boxed."""
        local = self.spec.local
        if local.time_boxed and local.steps is not None:
            self._steps = min(steps, local.steps)

    def rebase(self, oldest: int) -> bool:
        """Train from versions from `oldest` on only; True when one that runs began from an older one.

        What earlier updates left out (error feedback) belongs to versions long gone: the next update begins without it,
        once none is in flight whose refusal would give some back.
        """
        self._forgets_residual = True
        self.oldest_base = max(self.oldest_base, oldest)
        return self.base is not None and self.base.version < self.oldest_base

    async def train(self, trainer: Trainer, base: Held, *, layout_digest: str) -> p.Trained | None:
        """Train once and put the update into the outbox; None when the training was cancelled."""
        update_id = self._outbox.next_id()
        biased, fresh = self.spec.codec.up.is_biased, self._forgets_residual and not self._outbox.waiting
        residual = self._outbox.residual_source(update_id, fresh=fresh) if biased else None
        command = assignment.train(
            self._outbox.frames_path(update_id),
            seed=training_seed(self.spec.seed, update_id),
            steps=self._steps,
            residual=residual,
        )
        self.base, began_at = base, time.time()
        span = self._telemetry.tracing.begin(UPDATE, f"{self._job}/{update_id}")
        try:
            reply = await trainer.ask(dataclasses.replace(command, local=self._local.next_path))
        finally:
            self.base = None
        match reply:
            case p.Cancelled():
                return None
            case p.Trained():
                self.trained_from = base.version
                self._local.written(reply)
                manifest = assignment.delta_manifest(self._job, update_id, reply, layout_digest=layout_digest)
                self._seen(update_id, reply, began_at=began_at)
                span.end(base_version=base.version, num_examples=reply.effort.num_examples, steps=reply.effort.steps)
                self._put(manifest, reply.frame_sizes, residual)
                self._forgets_residual = self._forgets_residual and not fresh
                return reply
        raise TrainerDiedError(f"the trainer answered {type(reply).__name__} to Train")

    def _seen(self, update_id: m.UpdateId, reply: p.Trained, *, began_at: float) -> None:
        """How long the trainer took: it says so itself, for it exports nothing."""
        metrics, tracing, key = self._telemetry.metrics, self._telemetry.tracing, f"{self._job}/{update_id}"
        metrics.observe(TRAIN_S, reply.effort.seconds, job_id=self._job)
        metrics.observe(ENCODE_S, reply.encode_s, job_id=self._job)
        trained_at = began_at + reply.effort.seconds
        tracing.record(TRAIN, key, began_at=began_at, ended_at=trained_at)
        tracing.record(ENCODE, key, began_at=trained_at, ended_at=trained_at + reply.encode_s)

    def send_local(self, *, layout_digest: str) -> str:
        """Put the newest local model into the outbox; its update's id, or empty: there is none, or it is not shared."""
        trained = self._local.newest
        if trained is None:
            return ""
        update_id = self._outbox.next_id()
        self._local.move_to(self._outbox.frames_path(update_id))
        manifest = assignment.local_manifest(self._job, update_id, trained, layout_digest=layout_digest)
        self._put(manifest, trained.local_sizes, None)
        return str(update_id)
