"""The aggregator's side of a run in virtual time: the production core and tensors, or a rule from elsewhere.

What lives here: one interface for the loop, and its two implementations. What may not: when something happens.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Protocol

from torch import Tensor

from fedbus.core.protocol.frames import Code
from fedbus.core.protocol.layout import Layout
from fedbus.core.protocol.messages import UpdateId
from fedbus.core.rules.aggregation import Aggregation
from fedbus.core.rules.facts import Arrival, Duplicate, Folded, Refused
from fedbus.core.rules.step_budget import StepBudgets
from fedbus.core.spec.training import TrainingSpec
from fedbus.simulation.trainer import Trained
from fedbus.tensors.codec import decode_change_
from fedbus.tensors.global_model import GlobalModel
from fedbus.tensors.server_optimizer import make_server_optimizer


class ForeignRule(Protocol):
    """An aggregation rule from elsewhere, such as a peer's aggregator object.

    `wait_for_new_version`: a site that has sent its update waits for the next version, as in synchronous rules.
    """

    wait_for_new_version: bool

    def on_update(  # noqa: PLR0917 - positional, so that a peer's method can be given as it is
        self, site: str, local_params: Tensor, delta: Tensor, base_version: int, num_examples: int, now: float
    ) -> Tensor | None:
        """Take an update; return the new global params when it made a version. All float32 [numel], only read."""


class Server(Protocol):
    """What the loop needs of an aggregator. `params` is what a site gets at `version`, float32 [numel]."""

    @property
    def params(self) -> Tensor: ...

    @property
    def version(self) -> int: ...

    @property
    def updates(self) -> int: ...

    @property
    def wait_for_new_version(self) -> bool: ...

    @property
    def snapshot_bytes(self) -> int:
        """Bytes of the whole model as a site that has none gets it."""

    def begin(self, *, now: float) -> None:
        """Training begins now."""

    def set_active(self, sites: Collection[str], *, now: float) -> None: ...

    def take(self, update: Trained, *, base: Tensor | None, now: float) -> Folded | Refused | None:
        """Take an update; None when the rule keeps no facts. `base` is given when `needs_base`."""

    @property
    def chosen(self) -> str | None:
        """Which rule weighs now and why, where the job leaves that to fedbus."""

    @property
    def needs_base(self) -> bool: ...

    def steps(self, site: str) -> int | None:
        """How many local steps a site is to make, when not the job's `local.steps`."""

    def commit_if_due(self, *, now: float) -> int | None:
        """Make a version when one is due; its bytes in the model log, None when none is."""

    def next_due_at(self, *, now: float) -> float | None: ...


class Production:
    """The core, the codec and the global model as the aggregator daemon runs them."""

    needs_base = False

    def __init__(self, spec: TrainingSpec, layout: Layout, initial: Tensor) -> None:
        self._spec = spec
        self._core = Aggregation(spec, now=0.0)
        self._model = GlobalModel(
            layout,
            initial.clone(),
            make_server_optimizer(spec.server_optimizer),
            down_code=Code(spec.codec.down),
            chunk_bytes=spec.chunk_bytes,
        )
        self._snapshot: tuple[int, int] | None = None
        self._kept: dict[UpdateId, tuple[bytes, ...]] = {}
        self._budgets = StepBudgets(spec.local.steps or 1) if spec.local.time_boxed else None

    @property
    def params(self) -> Tensor:
        return self._model.hidden

    @property
    def version(self) -> int:
        return self._core.version

    @property
    def updates(self) -> int:
        return self._core.updates

    @property
    def wait_for_new_version(self) -> bool:
        return self._core.wait_for_new_version

    @property
    def chosen(self) -> str | None:
        return self._core.chosen

    @property
    def snapshot_bytes(self) -> int:
        if self._snapshot is None or self._snapshot[0] != self.version:
            self._snapshot = self.version, sum(map(len, self._model.snapshot()))
        return self._snapshot[1]

    def begin(self, *, now: float) -> None:
        self._core.restart_timers(now=now)

    def set_active(self, sites: Collection[str], *, now: float) -> None:
        self._core.set_active(sites, now=now)

    def take(self, update: Trained, *, base: Tensor | None, now: float) -> Folded | Refused | None:
        inspection = self._model.inspect_(update.frames)
        arrival = Arrival(
            update_id=update.update_id,
            base_version=update.base_version,
            effort=update.effort,
            norm=inspection.norm,
            values_norm=inspection.values_norm,
            scale=inspection.scale,
        )
        if inspection.problem:
            return self._refused(self._core.refuse(update.update_id, reason=f"body: {inspection.problem}"))
        verdict = self._core.receive(arrival, now=now)
        if self._budgets is not None:
            self._budgets.measured(update.update_id.site, steps=update.effort.steps, seconds=update.effort.seconds)
        match verdict:
            case Folded():
                self._model.fold_(verdict, self._bodies)
                self._kept[verdict.update_id] = update.frames
            case Refused() | Duplicate():
                if self.wait_for_new_version:
                    self._core.set_idle(update.update_id.site)
                return self._refused(verdict)
        return verdict

    def _refused(self, verdict: Refused | Duplicate) -> Refused:
        if isinstance(verdict, Duplicate):
            raise AssertionError(f"update {verdict.update_id} was sent twice")
        return verdict

    def steps(self, site: str) -> int | None:
        return None if self._budgets is None else self._budgets.budget(site, self._core.active)

    def commit_if_due(self, *, now: float) -> int | None:
        # as the daemon does: nothing is committed while nobody is there
        if not self._core.active or self._core.commit_due(now=now) is None:
            return None
        compared = self._core.to_compare(now=now)
        gram = None if compared is None else self._model.gram(compared, self._bodies)
        fact = self._core.commit(now=now, gram=gram)
        sent_bytes = sum(map(len, self._model.commit_(fact, self._bodies)))
        needed = self._core.memory.needed(last=True)
        self._kept = {update_id: frames for update_id, frames in self._kept.items() if update_id in needed}
        return sent_bytes

    def next_due_at(self, *, now: float) -> float | None:
        return self._core.next_due_at(now=now) if self._core.active else None

    def _bodies(self, update_id: UpdateId) -> Iterator[bytes]:
        """The frames of an update that a fact refers to again."""
        return iter(self._kept[update_id])


class Foreign:
    """A rule from elsewhere behind the same loop. Its versions travel whole, as fp32."""

    needs_base = True
    chosen = None
    updates = 0
    version = 0

    def __init__(self, rule: ForeignRule, layout: Layout, initial: Tensor) -> None:
        self._rule = rule
        self._layout = layout
        self.params = initial.clone()
        self._made = False

    @property
    def wait_for_new_version(self) -> bool:
        return self._rule.wait_for_new_version

    @property
    def snapshot_bytes(self) -> int:
        return 4 * self._layout.numel

    def begin(self, *, now: float) -> None:
        """A foreign rule has no clock."""

    def set_active(self, sites: Collection[str], *, now: float) -> None:
        """A foreign rule is made with its sites."""

    def take(self, update: Trained, *, base: Tensor | None, now: float) -> Folded | Refused | None:
        assert base is not None  # noqa: S101 - the loop gives it where `needs_base`
        # peers know no values: running statistics are params to them, as in their own servers
        delta, values = base.clone(), slice(0, self._layout.value_numel)
        decode_change_(delta, update.frames, self._layout)
        delta[values].sub_(base[values])
        made = self._rule.on_update(
            update.update_id.site, base + delta, delta, update.base_version, update.effort.num_examples, now
        )
        self.updates += 1
        if made is not None:
            self.params = made.detach().clone()
            self.version += 1
            self._made = True
        return None

    def steps(self, site: str) -> int | None:
        return None

    def commit_if_due(self, *, now: float) -> int | None:
        if not self._made:
            return None
        self._made = False
        return self.snapshot_bytes

    def next_due_at(self, *, now: float) -> float | None:
        return None
