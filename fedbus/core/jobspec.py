"""The job spec: the immutable description of one federated run, as a person writes it in YAML or JSON.

What lives here: the keys of a job, their limits and defaults. What may not: what the rules do (see `staleness`,
`strategies`, `aggregation`, `job`), torch, files. Only this module and its helpers `jobspec_sections` and `spec_text`
use pydantic in the core: a spec comes from outside and is validated whole, so that its author sees every mistake at
once, each with its path.

A complete example; `task`, `local`, `stop` and `name` are required, all other keys have the defaults shown here:

    name: heart-4-hospitals          # 1 to 40 of a-z, 0-9 and '-'
    task: heart_disease              # a task that the sites have installed
    task_config: {hidden: 32}        # handed to the task as it stands
    seed: 0
    min_sites: 1                     # the job starts when so many sites have accepted
    sites: null                      # only these sites are asked; null asks everybody
    initial_params: null             # a file in the aggregator's params folder; null: the first site makes them
    local:                           # what a site does between two versions
      steps: 40                      # exactly one of steps, epochs, seconds
      batch_size: 32
      learning_rate: 0.01
      proximal_mu: 0.0               # FedProx, arXiv 1812.06127
      autocast_bf16: false
      evaluate: true                 # every site scores the versions it receives
    strategy:                        # also in short: `strategy: sync`
      kind: buffered                 # buffered | fedasync | sync
      buffer: null                   # null: max(2, ceil(N / 3)), and never more than the N active sites
      flush_after_s: null
      normalise: weights             # weights | buffer (textbook FedBuff)
      rate_correction: 0.0
    staleness: {kind: polynomial, a: 0.5}   # constant | polynomial | hinge | exponential
    max_staleness: null              # refuse updates that are staler, in versions
    num_examples_power: 0.5          # weight of a site is num_examples to this power
    clip_to_own_median: null         # clip a delta to so many times the site's own recent median norm
    server_optimizer: {kind: plain, lr: 1.0}   # plain | momentum | adam | yogi
    codec: {up: int8, down: int8}    # fp32 | fp16 | bf16 | int8 | int4; up also {kind: topk, ratio: 0.01}
    chunk_bytes: 1048576
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
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    field_validator,
    model_validator,
)

from fedbus.core.jobspec_sections import (
    BufferedSpec,
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
    ServerOptimizerSpec,
    Spec,
    StalenessSpec,
    StopSpec,
    StrategySpec,
    SyncSpec,
    TargetSpec,
    UpSpec,
)
from fedbus.core.messages import check_name
from fedbus.core.spec_text import SpecValueError, frozen_json, load_yaml, problems_of, shown, thawed_json
from fedbus.errors import JobSpecError, Problem

__all__ = [
    "BufferedSpec",
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
FrozenJson = Annotated[
    Mapping[str, Any],
    PlainValidator(frozen_json),
    PlainSerializer(thawed_json),
]


class JobSpec(Spec):
    """One job. Build it with `parse` or `parse_yaml`, which report every problem; never mutated afterwards."""

    name: Name
    task: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    task_config: FrozenJson = Field(default_factory=lambda: MappingProxyType({}))
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    min_sites: Annotated[int, Field(ge=1, le=10**6)] = 1
    sites: Sites | None = None
    initial_params: str | None = None
    local: LocalSpec
    strategy: StrategySpec = BufferedSpec()
    staleness: StalenessSpec = PolynomialSpec()
    max_staleness: Annotated[int, Field(ge=0)] | None = None
    num_examples_power: Annotated[float, Field(ge=0, le=1)] = 0.5
    clip_to_own_median: Annotated[float, Field(ge=1)] | None = None
    server_optimizer: ServerOptimizerSpec = ServerOptimizerSpec()
    codec: CodecSpec = CodecSpec()
    chunk_bytes: Annotated[int, Field(ge=256 * KIB, le=MOST_CHUNK_BYTES)] = MIB
    stop: StopSpec
    snapshot_every: Count | None = None

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
