"""The spec of a job that trains: what `head` has for every job, and how the sites make one model together.

What lives here: the keys, their limits and defaults. What may not: what the rules do (see `rules`, `job.life`). Only
the modules of this room use pydantic in the core: a spec comes from outside and is validated whole, so that its author
sees every mistake at once, each with its path.

A complete example. Required are `name`, `task`, a rule in `stop`, and in `local` the budget, `batch_size` and
`learning_rate`; all other keys have the defaults shown here:

    name: heart-4-hospitals          # 1 to 40 of a-z, 0-9 and '-'
    task: heart_disease              # a task that the sites have installed
    task_config: {hidden: 32}        # handed to the task as it stands
    seed: 0
    min_sites: 1                     # the job starts when so many sites have accepted, and pauses with fewer
    sites: null                      # only these sites are asked; null asks everybody
    priority: 0                      # -100 to 100: whose turn it is at a site that works for other jobs
    chunk_bytes: 1048576
    kind: training                   # see `kinds` for others, which have the keys above and keys of their own
    min_contributors: 1              # every version comes from so many distinct sites: a promise to each of them
    initial_params: null             # a file in the aggregator's params folder; null: the first site makes them
    continues: null                  # a job that has ended, whose best version this one begins with; or
                                     # e.g. {job: heart-4-hospitals-0c1d2e3f, version: last}
    check: null                      # required: data are checked first, sites at fault are left out
    min_new_labels: 0                # wait until the sites' data sources have so many labels that are new to the task
    evaluate_local: false            # at the end, sites that allow it leave their local models, for all to score
    keep: []                         # tensors that stay at each site: patterns such as "head.*", or `batch_norm`
                                     # (FedBN: all of batch normalisation) or `buffers`
    travel: []                       # only these tensors travel, all others stay at each site; []: all travel
    frozen: []                       # tensors that come with the first params, and are neither trained nor sent
    local:                           # what a site does between two versions
      steps: 40                      # exactly one of steps, epochs, seconds
      time_boxed: false              # slower sites make fewer steps, down to steps / 5, so that all return alike
      batch_size: 32
      learning_rate: 0.01
      proximal_mu: 0.0               # FedProx, arXiv 1812.06127
      autocast_bf16: false
      evaluate: true                 # every site scores the versions it receives
    strategy:                        # also in short: `strategy: sync`
      kind: auto                     # auto | calibrated | buffered | fedasync | sync
      buffer: null                   # null: max(2, ceil(N / 3)), at most N active sites; calibrated: N - 1
      flush_after_s: null            # null: auto measures how long the buffer takes, the others wait
    staleness: {kind: polynomial, a: 0.5}   # constant | polynomial | hinge | exponential; not for auto and calibrated
    max_staleness: null              # refuse updates that are staler, in versions
    num_examples_power: 0.5          # weight of a site is num_examples to this power
    num_examples_ratio: 10.0         # buffered, calibrated: at most so many times that of the site with the fewest
    clip_to_own_median: 2.0          # clip a delta to so many times the site's own recent median norm; null: never
    clip_to_buffer: null             # clip to so many times the median norm of the other sites; 4 starves nobody
    robust: null                     # multi_krum | trimmed_mean | median, e.g. {kind: multi_krum, f: 2}: up to f sites
                                     # may lie; a version then takes at least 2 f + 3 sites, and so does min_sites
    server_optimizer: {kind: plain, lr: auto}   # plain | momentum | adam | yogi | fadas; auto: see `server_step`
    codec: {up: int8, down: int8}    # fp32 | fp16 | bf16 | int8 | int4; up also {kind: topk, ratio: 0.01}
    # other strategies:
    #   {kind: calibrated, buffer: null, flush_after_s: null}
    #   {kind: buffered, buffer: null, flush_after_s: null, normalise: weights, rate_correction: 0.0}
    #       normalise: buffer is the textbook's FedBuff; rate_correction: 1.0 gives slow sites as much say as fast ones
    #   {kind: fedasync, mixing: 0.6}
    #   {kind: sync, k: null, deadline_s: 60.0}
    stop:                            # at least one; the first that is reached ends the job
      versions: 50
      updates: null
      wall_time_s: null
      target: null                   # e.g. {metric: auc, at_least: 0.8}
      patience: null                 # e.g. {versions: 10, metric: auc, better: higher}, or just 10
    track: []                        # curves for these tools, where somebody runs `fedbus track`: tensorboard, mlflow,
                                     # wandb-offline
    snapshot_every: null             # versions between two snapshots in the model log; null: the aggregator decides
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, Self, assert_never

from pydantic import BeforeValidator, Field, field_validator, model_validator

from fedbus.core.spec.continues import Continues
from fedbus.core.spec.contributors import check_contributors
from fedbus.core.spec.head import JobSpec
from fedbus.core.spec.sections import (
    AutoSpec,
    BufferedSpec,
    CalibratedSpec,
    Code,
    CodecSpec,
    ConstantSpec,
    Count,
    ExponentialSpec,
    FedAsyncSpec,
    HingeSpec,
    LocalSpec,
    PatienceSpec,
    PolynomialSpec,
    RobustSpec,
    ServerOptimizerSpec,
    StalenessSpec,
    StopSpec,
    StrategySpec,
    SyncSpec,
    TargetSpec,
    UpSpec,
    kind_from_text,
    plain_file_name,
)
from fedbus.core.spec.sharing import check_sharing, check_whole
from fedbus.core.spec.text import SpecValueError
from fedbus.errors import Problem

__all__ = [
    "AutoSpec",
    "BufferedSpec",
    "CalibratedSpec",
    "Code",
    "CodecSpec",
    "ConstantSpec",
    "ExponentialSpec",
    "FedAsyncSpec",
    "HingeSpec",
    "LocalSpec",
    "PatienceSpec",
    "PolynomialSpec",
    "RobustSpec",
    "ServerOptimizerSpec",
    "StalenessSpec",
    "StopSpec",
    "StrategySpec",
    "SyncSpec",
    "TargetSpec",
    "TrainingSpec",
    "UpSpec",
]

Patterns = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(strict=False, max_length=100)
]
TrackTools = Annotated[tuple[Literal["tensorboard", "mlflow", "wandb-offline"], ...], Field(strict=False, max_length=3)]


class TrainingSpec(JobSpec):
    """One job that trains."""

    kind: Literal["training"] = "training"
    """The sites train one model together; what a job is that says no kind."""
    min_contributors: Annotated[int, Field(ge=1, le=10**6)] = 1
    """Every version comes from at least so many sites."""
    initial_params: str | None = None
    """A file in the aggregator's params folder; null lets a site make the first params."""
    continues: Continues = None
    """A job that has ended: this one begins with its best version, and sites with what they kept of it."""
    check: Literal["required"] | None = None
    """The sites' data are checked first, and who is at fault is left out; null: they are not."""
    min_new_labels: Annotated[int, Field(ge=0, le=10**6)] = 0
    """The job starts when the sites' data sources have brought so many labels that the task was not trained with."""
    evaluate_local: bool = False
    """At the end sites that allow it leave their local models, and a job follows in which every site scores them."""
    keep: Patterns = ()
    """Tensors that stay at each site: patterns such as head.*, or batch_norm, or buffers."""
    travel: Patterns = ()
    """Only these tensors travel, the others stay at each site: entries as in keep; empty lets all travel."""
    frozen: Patterns = ()
    """Tensors that come with the first params and are then neither trained nor sent: entries as in keep."""
    local: LocalSpec
    """What a site does between two versions."""
    strategy: StrategySpec = AutoSpec()
    """When updates become a version; `strategy: sync` in short."""
    staleness: StalenessSpec = PolynomialSpec()
    """How much less an update counts that is versions behind; not for auto and calibrated."""
    max_staleness: Annotated[int, Field(ge=0, le=10**12)] | None = None
    """Updates that are staler, in versions, are refused; null refuses none."""
    num_examples_power: Annotated[float, Field(ge=0, le=1)] = 0.5
    """A site counts by its number of examples to this power."""
    num_examples_ratio: Annotated[float, Field(ge=1, le=10**9)] | None = 10.0
    """Auto, buffered, calibrated: a site counts at most so many times the one with the fewest; null: no limit."""
    clip_to_own_median: Annotated[float, Field(ge=1, le=10**9)] | None = 2.0
    """A delta is cut to so many times the site's own recent median length; null never cuts."""
    clip_to_buffer: Annotated[float, Field(ge=1, le=10**9)] | None = None
    """A delta is cut to so many times the median length of the other sites' deltas; null never cuts."""
    robust: Annotated[RobustSpec | None, BeforeValidator(kind_from_text)] = None
    """A rule for sites that may lie; null is the weighted mean. `robust: median` in short."""
    server_optimizer: ServerOptimizerSpec = ServerOptimizerSpec()
    """How a version is made of the mean of the updates; `server_optimizer: adam` in short."""
    codec: CodecSpec = CodecSpec()
    """How numbers are coded on the wire."""
    stop: StopSpec
    """When the job ends: at least one rule; the first that is reached ends it."""
    track: TrackTools = ()
    """Curves for tensorboard, mlflow or wandb-offline, written by a `fedbus track` that somebody runs."""
    snapshot_every: Count | None = None
    """Versions between two whole models in the model log; null lets the aggregator decide."""

    new_keys: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {
            "kind": "training",
            "continues": None,
            "evaluate_local": False,
            "check": None,
            "keep": [],
            "travel": [],
            "frozen": [],
            "min_contributors": 1,
            "track": [],
            "priority": 0,
        }
    )

    @field_validator("initial_params")
    @classmethod
    def _plain_file_name(cls, value: str | None) -> str | None:
        return plain_file_name(value)

    @model_validator(mode="after")
    def _one_beginning(self) -> Self:
        if self.continues is not None and self.initial_params is not None:
            raise SpecValueError("initial_params", "and continues both say what the first params are: leave one out")
        return self

    @model_validator(mode="after")
    def _enough_for_a_sync(self) -> Self:
        if self.sites is not None and isinstance(self.strategy, SyncSpec) and (self.strategy.k or 0) > len(self.sites):
            raise SpecValueError("strategy.k", f"is {self.strategy.k}, but sites lists only {len(self.sites)}")
        return self

    @model_validator(mode="after")
    def _enough_contributors(self) -> Self:
        check_contributors(self.min_contributors, strategy=self.strategy, robust=self.robust, sites=self.sites)
        return self

    @model_validator(mode="after")
    def _one_place_for_a_tensor(self) -> Self:
        check_sharing(travel=self.travel, keep=self.keep, frozen=self.frozen)
        check_whole(evaluate_local=self.evaluate_local, travel=self.travel, keep=self.keep)
        return self

    @model_validator(mode="after")
    def _robust_has_a_buffer(self) -> Self:
        if self.robust is None:
            return self
        kind, least = self.robust.kind, self.robust.least_sites
        match self.strategy:
            case FedAsyncSpec():
                problem = "makes a version of every update, a robust rule needs a buffer; use auto, buffered or sync"
            case CalibratedSpec():
                problem = "remembers what sites sent, a liar's delta too; use auto or buffered"
            case BufferedSpec(normalise="buffer"):
                problem = "divides by the buffer, a robust rule has a mean of its own; use normalise: weights"
            case _ if self.local.time_boxed:
                raise SpecValueError("local.time_boxed", f"makes deltas of unlike lengths, {kind} compares them")
            case SyncSpec(k=int(k)) if k < least:
                raise SpecValueError("strategy.k", f"is {k}, but {kind} with f = {self.robust.f} needs {least} sites")
            case _ if self.min_sites < least:
                raise SpecValueError(
                    "min_sites", f"is {self.min_sites}, but {kind} with f = {self.robust.f} needs {least} sites"
                )
            case _:
                return self
        raise SpecValueError("strategy", problem)

    @model_validator(mode="after")
    def _time_boxes_have_no_memory(self) -> Self:
        if self.local.time_boxed and isinstance(self.strategy, CalibratedSpec):
            raise SpecValueError("strategy", "remembers deltas of unlike lengths when local.time_boxed; use auto")
        return self

    @property
    def least_sites(self) -> int:
        """So many sites must be there for the job to start and to go on."""
        return max(self.min_sites, self.min_contributors)

    @property
    def keeps_some(self) -> bool:
        """Whether some tensors of the model never leave the sites."""
        return bool(self.keep or self.travel)

    def to_offer(self) -> dict[str, Any]:
        """See `JobSpec`; where the params come from is a site's business only when it keeps some of them."""
        offer = super().to_offer()
        offer.pop("min_new_labels", None)  # the aggregator waits; sites tell what they have in any case
        if not self.keeps_some:
            offer.pop("continues", None)
        return offer

    @property
    def adapts_step(self) -> bool:
        """Whether the core decides the server optimizer's step: `server_optimizer.lr: auto`, where K differs from N."""
        if self.server_optimizer.lr != "auto":
            return False
        match self.strategy:
            case BufferedSpec(normalise=normalise):
                return normalise == "weights"
            case AutoSpec() | CalibratedSpec():
                return True
            case FedAsyncSpec() | SyncSpec():
                return False
            case _:
                assert_never(self.strategy)

    @model_validator(mode="after")
    def _something_ends_it(self) -> Self:
        stop = self.stop
        if not self.local.evaluate and {stop.versions, stop.updates, stop.wall_time_s} == {None}:
            raise SpecValueError(
                "local.evaluate", "is false, and only scores could end this job; leave it out, or give stop.versions"
            )
        return self

    @model_validator(mode="after")
    def _discounts(self) -> Self:
        if isinstance(self.strategy, AutoSpec | CalibratedSpec) and self.staleness != PolynomialSpec():
            raise SpecValueError(
                "staleness",
                f"strategy {self.strategy.kind} does not discount stale updates, which would starve slow sites; leave "
                "staleness out, or choose strategy: buffered",
            )
        return self

    @classmethod
    def problems_of_choices(cls, data: Mapping[str, Any]) -> list[Problem]:
        stop = data.get("stop")
        target = stop.get("target") if isinstance(stop, Mapping) else None
        found = []
        for path, section, raw in (
            ("local", LocalSpec, data.get("local")),
            ("stop", StopSpec, stop),
            ("stop.target", TargetSpec, target),
        ):
            if isinstance(raw, Mapping):
                problem = section.check_given(frozenset(key for key, value in raw.items() if value is not None))
                if problem:
                    found.append(Problem(path=path, message=problem))
        return found
