"""The job spec: the immutable description of one federated run, as a person writes it in YAML or JSON.

What lives here: the keys of a job, their limits and defaults. What may not: what the rules do (see `rules`,
`job.life`), torch, files. Only this module and its helpers `sections` and `text` use pydantic in the core: a spec comes
from outside and is validated whole, so that its author sees every mistake at once, each with its path.

A complete example. Required are `name`, `task`, a rule in `stop`, and in `local` the budget, `batch_size` and
`learning_rate`; all other keys have the defaults shown here:

    name: heart-4-hospitals          # 1 to 40 of a-z, 0-9 and '-'
    task: heart_disease              # a task that the sites have installed
    task_config: {hidden: 32}        # handed to the task as it stands
    seed: 0
    min_sites: 1                     # the job starts when so many sites have accepted, and pauses with fewer
    min_contributors: 1              # every version comes from so many distinct sites: a promise to each of them
    sites: null                      # only these sites are asked; null asks everybody
    priority: 0                      # -100 to 100: whose turn it is at a site that trains other jobs
    initial_params: null             # a file in the aggregator's params folder; null: the first site makes them
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
    chunk_bytes: 1048576
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
    snapshot_every: null             # versions between two snapshots in the model log; null: the aggregator decides
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Self, assert_never

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    field_validator,
    model_validator,
)

from fedbus.core.protocol.messages import check_name
from fedbus.core.spec.contributors import check_contributors
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
    Spec,
    StalenessSpec,
    StopSpec,
    StrategySpec,
    SyncSpec,
    TargetSpec,
    UpSpec,
    kind_from_text,
)
from fedbus.core.spec.sharing import check_sharing
from fedbus.core.spec.text import (
    SpecValueError,
    frozen_json,
    load_yaml,
    problems_of,
    shown,
    thawed_json,
)
from fedbus.errors import JobSpecError, Problem

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
    "JobSpec",
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
    "UpSpec",
]

KIB = 1024
MIB = 1024 * KIB
MOST_CHUNK_BYTES = 8 * MIB

Name = Annotated[str, AfterValidator(lambda value: check_name("name", value))]
Sites = Annotated[
    tuple[Annotated[str, AfterValidator(lambda value: check_name("site", value))], ...], Field(strict=False)
]
Patterns = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(strict=False, max_length=100)
]
FrozenJson = Annotated[
    Mapping[str, Any],
    PlainValidator(frozen_json),
    PlainSerializer(thawed_json),
]


_NEW_KEYS: Mapping[str, Any] = MappingProxyType(
    {"keep": [], "travel": [], "frozen": [], "min_contributors": 1, "priority": 0}
)
"""Keys that the release before does not know, with what it does."""


class JobSpec(Spec):
    """One job. Build it with `parse` or `parse_yaml`, which report every problem; never mutated afterwards."""

    name: Name
    """1 to 40 of a-z, 0-9 and -; the id of the job is this and eight hex digits."""
    task: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    """Name of a task that the sites have installed."""
    task_config: FrozenJson = Field(default_factory=lambda: MappingProxyType({}))
    """Handed to the task as it stands; the task says what it knows."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of the first params and of the order of the examples."""
    min_sites: Annotated[int, Field(ge=1, le=10**6)] = 1
    """The job starts when so many sites have accepted, and pauses with fewer."""
    min_contributors: Annotated[int, Field(ge=1, le=10**6)] = 1
    """Every version comes from at least so many sites."""
    sites: Sites | None = None
    """Only these sites are asked, each named once; null asks every site."""
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    """Whose turn it is at a site that trains several jobs; higher goes first."""
    initial_params: str | None = None
    """A file in the aggregator's params folder; null lets a site make the first params."""
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
    chunk_bytes: Annotated[int, Field(ge=256 * KIB, le=MOST_CHUNK_BYTES)] = MIB
    """Bytes of one message of an update or a version."""
    stop: StopSpec
    """When the job ends: at least one rule; the first that is reached ends it."""
    snapshot_every: Count | None = None
    """Versions between two whole models in the model log; null lets the aggregator decide."""

    @field_validator("initial_params")
    @classmethod
    def _plain_file_name(cls, value: str | None) -> str | None:
        if value is not None and (not value or set(value) & {"/", "\\", "\0"} or value.startswith(".")):
            raise ValueError(
                f"give the name of a file in the aggregator's params folder, without a path; got {value!r}"
            )
        return value

    @field_validator("sites")
    @classmethod
    def _distinct_sites(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and (not value or len(set(value)) != len(value)):
            raise ValueError("name at least one site, and each site once; leave the key out to ask every site")
        return value

    @model_validator(mode="after")
    def _enough_sites(self) -> Self:
        if self.sites is not None:
            listed = len(self.sites)
            if self.min_sites > listed:
                raise SpecValueError("min_sites", f"is {self.min_sites}, but sites lists only {listed}")
            if isinstance(self.strategy, SyncSpec) and (self.strategy.k or 0) > listed:
                raise SpecValueError("strategy.k", f"is {self.strategy.k}, but sites lists only {listed}")
        return self

    @model_validator(mode="after")
    def _enough_contributors(self) -> Self:
        check_contributors(self.min_contributors, strategy=self.strategy, robust=self.robust, sites=self.sites)
        return self

    @model_validator(mode="after")
    def _one_place_for_a_tensor(self) -> Self:
        check_sharing(travel=self.travel, keep=self.keep, frozen=self.frozen)
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
    def parse(cls, data: object) -> JobSpec:
        """Validate `data`, a mapping such as JSON or YAML gives; JobSpecError lists every problem with its path."""
        if not isinstance(data, Mapping):
            message = f"a job spec is a mapping of keys to values, got {shown(data)}"
            raise JobSpecError([Problem(path="", message=message)])
        choices = _problems_of_choices(data)
        try:
            spec = cls.model_validate(dict(data))
        except ValidationError as exc:
            found = problems_of(exc, cls)
            raise JobSpecError(found + [p for p in choices if p not in found]) from exc
        return spec

    @classmethod
    def parse_yaml(cls, text: str) -> JobSpec:
        """Parse a YAML (or JSON) text; JobSpecError also for its syntax, with the line."""
        return cls.parse(load_yaml(text))

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as JSON-able data with every default filled in; `parse` of it gives an equal spec."""
        return self.model_dump(mode="json")

    def to_offer(self) -> dict[str, Any]:
        """Return the spec as sites are offered it: a site of the release before reads one that asks for nothing new."""
        return {k: v for k, v in self.to_dict().items() if k not in _NEW_KEYS or v != _NEW_KEYS[k]}


def _problems_of_choices(data: Mapping[str, Any]) -> list[Problem]:
    """Check which keys go together even where another key of the section is wrong (pydantic would stop there)."""
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
