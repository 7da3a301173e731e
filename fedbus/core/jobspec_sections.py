"""The sections of a job spec, one frozen pydantic class each; `jobspec` puts them together and documents every key.

What lives here: keys, limits and defaults. What may not: what the rules do (see `staleness`, `strategies`, `job`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_serializer, model_validator

from fedbus.core.frames import DEFAULT_RATIO
from fedbus.core.robust import RobustKind, least_sites


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _exactly_one(given: frozenset[str], keys: tuple[str, ...]) -> str | None:
    found = [key for key in keys if key in given]
    if len(found) == 1:
        return None
    return f"give exactly one of {', '.join(keys)}; got {' and '.join(found) or 'none of them'}"


def kind_from_text(value: object) -> object:
    return {"kind": value} if isinstance(value, str) else value


Metric = Annotated[str, Field(pattern=r"^[A-Za-z0-9_./-]{1,64}$")]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1, le=10**12)]
Code = Literal["fp32", "fp16", "bf16", "int8", "int4"]
UpCode = Literal["fp32", "fp16", "bf16", "int8", "int4", "topk"]


class Spec(BaseModel):
    """Base of every section: frozen, strict (no text where a number belongs), unknown keys are errors."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def check_given(cls, given: frozenset[str]) -> str | None:
        """Say what is wrong with this set of keys that have a value; None when nothing is."""
        return None

    @model_validator(mode="after")
    def _check_given(self) -> Self:
        problem = self.check_given(frozenset(key for key in type(self).model_fields if getattr(self, key) is not None))
        if problem:
            raise ValueError(problem)
        return self


class LocalSpec(Spec):
    """What a site does between two versions. The budget is exactly one of `steps`, `epochs` and `seconds`.

    `time_boxed`: `steps` is what the fastest site makes; slower ones make fewer, see `step_budget`.
    """

    steps: Count | None = None
    epochs: Positive | None = None
    seconds: Positive | None = None
    time_boxed: bool = False
    batch_size: Annotated[int, Field(ge=1, le=10**6)]
    learning_rate: Positive
    proximal_mu: Annotated[float, Field(ge=0)] = 0.0
    autocast_bf16: bool = False
    evaluate: bool = True

    @classmethod
    def check_given(cls, given: frozenset[str]) -> str | None:
        return _exactly_one(given, ("steps", "epochs", "seconds"))

    @model_validator(mode="after")
    def _boxes_hold_steps(self) -> Self:
        if self.time_boxed and self.steps is None:
            raise ValueError("time_boxed needs the budget in steps: slower sites then make fewer of them")
        return self


class BufferedSpec(Spec):
    """FedBuff: commit when `buffer` updates are folded. See `strategies.Buffered`."""

    kind: Literal["buffered"] = "buffered"
    buffer: Annotated[int, Field(ge=1, le=10**6)] | None = None
    flush_after_s: Positive | None = None
    normalise: Literal["weights", "buffer"] = "weights"
    rate_correction: Annotated[float, Field(ge=0, le=1)] = 0.0

    @model_validator(mode="after")
    def _correction_needs_weights(self) -> Self:
        if self.rate_correction and self.normalise == "buffer":
            raise ValueError(
                "rate_correction needs normalise: weights; divided by the buffer it would lengthen the step"
            )
        return self


class CalibratedSpec(Spec):
    """CA2FL: what a site sent last stands in for it until it sends again. See `strategies.Calibrated`."""

    kind: Literal["calibrated"] = "calibrated"
    buffer: Annotated[int, Field(ge=1, le=10**6)] | None = None
    flush_after_s: Positive | None = None


class AutoSpec(Spec):
    """Buffered or calibrated, whichever suits how much the sites differ in speed. See `strategies.Auto`."""

    kind: Literal["auto"] = "auto"
    buffer: Annotated[int, Field(ge=1, le=10**6)] | None = None
    flush_after_s: Positive | None = None


class FedAsyncSpec(Spec):
    """FedAsync: commit at every update, scaled by `mixing`. See `strategies.FedAsync`."""

    kind: Literal["fedasync"] = "fedasync"
    mixing: Annotated[float, Field(gt=0, le=1)] = 0.6


class SyncSpec(Spec):
    """FedAvg with `k` of the accepted sites (None: all that are online) and a deadline. See `strategies.Sync`."""

    kind: Literal["sync"] = "sync"
    k: Annotated[int, Field(ge=1, le=10**6)] | None = None
    deadline_s: Positive = 60.0


StrategySpec = Annotated[
    AutoSpec | BufferedSpec | CalibratedSpec | FedAsyncSpec | SyncSpec,
    Field(discriminator="kind"),
    BeforeValidator(kind_from_text),
]


class ConstantSpec(Spec):
    """Every update has staleness weight 1."""

    kind: Literal["constant"] = "constant"


class PolynomialSpec(Spec):
    """Staleness weight (1 + s)^-a."""

    kind: Literal["polynomial"] = "polynomial"
    a: Annotated[float, Field(ge=0, le=10)] = 0.5


class HingeSpec(Spec):
    """Staleness weight 1 up to `b` versions, then 1 / (a (s - b) + 1)."""

    kind: Literal["hinge"] = "hinge"
    a: Annotated[float, Field(ge=0, le=10**6)] = 10.0
    b: Annotated[int, Field(ge=0, le=10**6)] = 4


class ExponentialSpec(Spec):
    """Staleness weight exp(-a s)."""

    kind: Literal["exponential"] = "exponential"
    a: Annotated[float, Field(ge=0, le=100)] = 0.1


StalenessSpec = Annotated[
    ConstantSpec | PolynomialSpec | HingeSpec | ExponentialSpec,
    Field(discriminator="kind"),
    BeforeValidator(kind_from_text),
]


class ServerOptimizerSpec(Spec):
    """The optimizer that takes the pseudo-gradient at every commit (Reddi et al. 2021, arXiv 2003.00295).

    `lr` not given: 'auto' for plain and momentum, a step that the core decides (see `server_step`; with fedasync, sync
    and the textbook's buffered always 1) times 1.0 or 1 - momentum, so that both go equally far; 0.01 for Adam, Yogi
    and FADAS, which bring the size of a step themselves. `tau_c`: FADAS shortens the step of a buffer with an update
    that is staler, in versions.
    """

    LR: ClassVar[Mapping[str, float | str]] = MappingProxyType(
        {"plain": "auto", "momentum": "auto", "adam": 0.01, "yogi": 0.01, "fadas": 0.01}
    )

    kind: Literal["plain", "momentum", "adam", "yogi", "fadas"] = "plain"
    lr: Positive | Literal["auto"] = "auto"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    eps: Positive = 1e-3
    tau_c: Annotated[int, Field(ge=0, le=10**6)] = 1

    @model_validator(mode="before")
    @classmethod
    def _fill_lr(cls, data: Any) -> Any:
        data = kind_from_text(data)
        if isinstance(data, Mapping) and data.get("lr") is None and isinstance(data.get("kind", "plain"), str):
            return {**data, "lr": cls.LR.get(data.get("kind", "plain"), "auto")}
        return data

    @model_validator(mode="after")
    def _auto_is_linear(self) -> Self:
        if self.lr == "auto" and self.kind not in ("plain", "momentum"):
            raise ValueError(f"lr: auto is for kind: plain and momentum; give {self.kind} a number, or leave lr out")
        return self

    @property
    def base_lr(self) -> float:
        """The lr that every step begins from; for 'auto' the one with which a mean delta moves the params by itself."""
        if self.lr != "auto":
            return self.lr
        return 1.0 - self.heavy_ball

    @property
    def heavy_ball(self) -> float:
        """How much of the last step the next one has; 0.0 where there is none."""
        return self.momentum if self.kind == "momentum" else 0.0


class UpSpec(Spec):
    """The code of updates; in short `up: int4`, which is also how it is written back.

    `ratio` belongs to topk: the share of elements that are sent, 0.01 when it is not given. What topk leaves out of one
    update is part of the next.
    """

    kind: UpCode = "int8"
    ratio: Annotated[float, Field(gt=0, le=1)] | None = None

    @property
    def is_biased(self) -> bool:
        """Whether the site keeps a residual."""
        return self.kind == "topk"

    @model_validator(mode="before")
    @classmethod
    def _fill_ratio(cls, data: Any) -> Any:
        data = kind_from_text(data)
        if isinstance(data, Mapping) and data.get("kind") == "topk" and data.get("ratio") is None:
            return {**data, "ratio": DEFAULT_RATIO}
        return data

    @model_validator(mode="after")
    def _ratio_is_of_topk(self) -> Self:
        if self.ratio is not None and self.kind != "topk":
            raise ValueError(f"ratio belongs to topk, not to {self.kind}; leave it out")
        return self

    @model_serializer
    def _in_short(self) -> str | dict[str, Any]:
        return self.kind if self.ratio is None else {"kind": self.kind, "ratio": self.ratio}


def _not_topk(value: object) -> object:
    if value == "topk" or (isinstance(value, Mapping) and value.get("kind") == "topk"):
        raise ValueError(
            "topk is for updates only: a version that brings 1 % of what changed leaves every site "
            "far behind; use int4 for down"
        )
    return value


class CodecSpec(Spec):
    """How deltas are coded: `up` from site to aggregator, `down` in the model log.

    int8 is the default: it is unbiased upwards, what it rounds away downwards comes with a later version, and it is a
    quarter of the bytes. Snapshots and tensors of at most 1,024 elements are exact whatever the code.
    """

    up: UpSpec = UpSpec()
    down: Annotated[Code, BeforeValidator(_not_topk)] = "int8"


class RobustSpec(Spec):
    """A rule that gives the right answer though up to `f` of the sites in a buffer lie. See `core.robust`."""

    kind: RobustKind
    f: Annotated[int, Field(ge=1, le=10**4)] = 2

    @property
    def least_sites(self) -> int:
        """So many distinct sites must be in a buffer: 2 f + 3."""
        return least_sites(self.f)


class TargetSpec(Spec):
    """Stop when the mean of `metric` over the sites is on the good side of a bound. See `job.Job`."""

    metric: Metric
    at_least: float | None = None
    at_most: float | None = None

    @classmethod
    def check_given(cls, given: frozenset[str]) -> str | None:
        return _exactly_one(given, ("at_least", "at_most"))

    @property
    def better(self) -> Literal["higher", "lower"]:
        return "higher" if self.at_least is not None else "lower"


class PatienceSpec(Spec):
    """Stop when `versions` scored versions in a row did not improve the mean of `metric`. See `job.Job`."""

    versions: Count
    metric: Metric = "loss"
    better: Literal["higher", "lower"] = "lower"


class StopSpec(Spec):
    """When the job ends: at least one rule; the first that is reached ends it.

    `patience: 10` in short watches the metric of `target` when there is one, otherwise `loss`, lower is better.
    """

    versions: Count | None = None
    updates: Count | None = None
    wall_time_s: Positive | None = None
    target: TargetSpec | None = None
    patience: PatienceSpec | None = None

    @classmethod
    def check_given(cls, given: frozenset[str]) -> str | None:
        rules = tuple(cls.model_fields)
        return None if given & set(rules) else f"give at least one of {', '.join(rules)}"

    @model_validator(mode="before")
    @classmethod
    def _fill_patience(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or not _is_int(data.get("patience")):
            return data
        patience: dict[str, Any] = {"versions": data["patience"]}
        target = data.get("target")
        if isinstance(target, Mapping) and "metric" in target:
            better = "higher" if target.get("at_least") is not None else "lower"
            patience |= {"metric": target["metric"], "better": better}
        return {**data, "patience": patience}
