"""The sections of a job spec, one frozen pydantic class each; `training` puts them together and documents every key.

What lives here: keys, limits and defaults. What may not: what the rules do (see `rules`, `job.life`).
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_serializer, model_validator

from fedbus.core.protocol.frames import DEFAULT_RATIO

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def exactly_one(given: frozenset[str], keys: tuple[str, ...]) -> str | None:
    """Say that not exactly one of the keys has a value; None when it is so."""
    found = [key for key in keys if key in given]
    if len(found) == 1:
        return None
    return f"give exactly one of {', '.join(keys)}; got {' and '.join(found) or 'none of them'}"


def plain_file_name(value: str | None) -> str | None:
    """Return the name of a file in the aggregator's params folder; ValueError when it is a path."""
    if value is not None and (not value or set(value) & {"/", "\\", "\0"} or value.startswith(".")):
        raise ValueError(f"give the name of a file in the aggregator's params folder, without a path; got {value!r}")
    return value


def kind_from_text(value: object) -> object:
    return {"kind": value} if isinstance(value, str) else value


Metric = Annotated[str, Field(pattern=r"^[A-Za-z0-9_./-]{1,64}$")]
# Every number has an upper bound, far above what makes sense, so that a slip of the pen is said and not tried out.
Seconds = Annotated[float, Field(gt=0, le=10**8)]  # three years
Positive = Annotated[float, Field(gt=0, le=10**6)]
Value = Annotated[float, Field(ge=-(10**12), le=10**12)]
Count = Annotated[int, Field(ge=1, le=10**12)]
Code = Literal["fp32", "fp16", "bf16", "int8", "int4"]
UpCode = Literal["fp32", "fp16", "bf16", "int8", "int4", "topk"]
RobustKind = Literal["multi_krum", "trimmed_mean", "median"]


def least_sites(f: int) -> int:
    """Return how many distinct sites a buffer needs for `f` of them to lie: 2 f + 3."""
    return 2 * f + 3


def _sentences(cls: type) -> dict[str, str]:
    """The sentences below the keys of a class and of those it is made from, by key."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if issubclass(base, Spec) and base is not Spec:
            lines = next(
                node.body for node in ast.parse(inspect.getsource(base)).body if isinstance(node, ast.ClassDef)
            )
            found |= {
                key.target.id: inspect.cleandoc(below.value.value)
                for key, below in pairwise(lines)
                if isinstance(key, ast.AnnAssign)
                and isinstance(key.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
                and isinstance(below.value.value, str)
            }
    return found


class Spec(BaseModel):
    """Base of every section: frozen, strict (no text where a number belongs), unknown keys are errors."""

    # defer_build: most processes read specs of few kinds, or none
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe each key by the sentence that stands below it. Read here: few processes ask for a schema."""
        found = handler(schema)
        keys = handler.resolve_ref_schema(found)["properties"]
        for name, sentence in _sentences(cls).items():
            if name in keys:
                keys[name]["description"] = sentence
        return found

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
    """Training steps (batches) between two versions; exactly one of steps, epochs and seconds is given."""
    epochs: Positive | None = None
    """Passes over the site's own examples between two versions; may be a fraction."""
    seconds: Seconds | None = None
    """Seconds of training between two versions."""
    time_boxed: bool = False
    """Slower sites make fewer steps, down to a fifth, so that all return alike; needs steps."""
    batch_size: Annotated[int, Field(ge=1, le=10**6)]
    """Examples in one training step; a site may decline a small one."""
    learning_rate: Positive
    """Learning rate of the task's optimizer at each site."""
    proximal_mu: Annotated[float, Field(ge=0, le=10**6)] = 0.0
    """FedProx (arXiv 1812.06127): how strongly a site is held near the version it began with; 0 is off."""
    autocast_bf16: bool = False
    """Train in bfloat16 where the device can."""
    evaluate: bool = True
    """Every site scores the versions it receives on its own test data."""

    @classmethod
    def check_given(cls, given: frozenset[str]) -> str | None:
        return exactly_one(given, ("steps", "epochs", "seconds"))

    @model_validator(mode="after")
    def _boxes_hold_steps(self) -> Self:
        if self.time_boxed and self.steps is None:
            raise ValueError("time_boxed needs the budget in steps: slower sites then make fewer of them")
        return self


class BufferedSpec(Spec):
    """FedBuff: commit when `buffer` updates are folded. See `strategies.Buffered`."""

    kind: Literal["buffered"] = "buffered"
    """FedBuff: whoever sends fills the buffer."""
    buffer: Annotated[int, Field(ge=1, le=10**6)] | None = None
    """Updates that make a version; null is a third of the N active sites, at least 2."""
    flush_after_s: Seconds | None = None
    """Make a version of what has come after so many seconds; null waits for the buffer."""
    normalise: Literal["weights", "buffer"] = "weights"
    """Divide by the sum of the weights, or by the size of the buffer as the textbook's FedBuff does."""
    rate_correction: Annotated[float, Field(ge=0, le=1)] = 0.0
    """1 gives slow sites as much say as fast ones, 0 as much as they send."""

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
    """CA2FL: what a site sent last stands in for it until it sends again."""
    buffer: Annotated[int, Field(ge=1, le=10**6)] | None = None
    """Updates that make a version; null is N - 1 of N active sites."""
    flush_after_s: Seconds | None = None
    """Make a version of what has come after so many seconds; null waits for the buffer."""


class AutoSpec(Spec):
    """Buffered or calibrated, whichever suits how much the sites differ in speed. See `strategies.Auto`."""

    kind: Literal["auto"] = "auto"
    """Buffered or calibrated, by how much the sites differ in speed."""
    buffer: Annotated[int, Field(ge=1, le=10**6)] | None = None
    """Updates that make a version; null is a third of the N active sites, at least 2."""
    flush_after_s: Seconds | None = None
    """Make a version of what has come after so many seconds; null measures how long the buffer takes."""


class FedAsyncSpec(Spec):
    """FedAsync: commit at every update, scaled by `mixing`. See `strategies.FedAsync`."""

    kind: Literal["fedasync"] = "fedasync"
    """FedAsync: a version of every update."""
    mixing: Annotated[float, Field(gt=0, le=1)] = 0.6
    """Share of the global model that an update replaces."""


class SyncSpec(Spec):
    """FedAvg with `k` of the accepted sites (None: all that are online) and a deadline. See `strategies.Sync`."""

    kind: Literal["sync"] = "sync"
    """FedAvg: a version of what a chosen set of sites sends."""
    k: Annotated[int, Field(ge=1, le=10**6)] | None = None
    """Sites that are asked for each version; null asks all that are online."""
    deadline_s: Seconds = 60.0
    """Seconds after which a version is made without those who have not sent."""


StrategySpec = Annotated[
    AutoSpec | BufferedSpec | CalibratedSpec | FedAsyncSpec | SyncSpec,
    Field(discriminator="kind"),
    BeforeValidator(kind_from_text),
]


class ConstantSpec(Spec):
    """Every update has staleness weight 1."""

    kind: Literal["constant"] = "constant"
    """An update counts fully however stale it is."""


class PolynomialSpec(Spec):
    """Staleness weight (1 + s)^-a."""

    kind: Literal["polynomial"] = "polynomial"
    """An update that is s versions stale counts (1 + s)^-a."""
    a: Annotated[float, Field(ge=0, le=10)] = 0.5
    """How fast the weight falls; 0 never."""


class HingeSpec(Spec):
    """Staleness weight 1 up to `b` versions, then 1 / (a (s - b) + 1)."""

    kind: Literal["hinge"] = "hinge"
    """An update counts fully up to b versions, then 1 / (a (s - b) + 1)."""
    a: Annotated[float, Field(ge=0, le=10**6)] = 10.0
    """How fast the weight falls after b versions."""
    b: Annotated[int, Field(ge=0, le=10**6)] = 4
    """Staleness in versions up to which an update counts fully."""


class ExponentialSpec(Spec):
    """Staleness weight exp(-a s)."""

    kind: Literal["exponential"] = "exponential"
    """An update that is s versions stale counts exp(-a s)."""
    a: Annotated[float, Field(ge=0, le=100)] = 0.1
    """How fast the weight falls; 0 never."""


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
    """The optimizer that makes a version of the mean of the updates."""
    lr: Positive | Literal["auto"] = "auto"
    """Its step; auto, for plain and momentum, lets the aggregator decide. Left out: 0.01 for adam, yogi and fadas."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of momentum: the share of the last step that the next one has."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of adam, yogi and fadas: decay of the mean."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Of adam, yogi and fadas: decay of the mean square."""
    eps: Positive = 1e-3
    """Of adam, yogi and fadas: added to the root of the mean square."""
    tau_c: Annotated[int, Field(ge=0, le=10**6)] = 1
    """Of fadas: a buffer with an update that is staler, in versions, makes a shorter step."""

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
    """How each number of an update is coded on the wire; `up: int4` in short."""
    ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    """Of topk: the share of the numbers that is sent; left out it is 0.01."""

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
    """The code of updates, from site to aggregator."""
    down: Annotated[Code, BeforeValidator(_not_topk)] = "int8"
    """The code of versions, from aggregator to sites."""


class RobustSpec(Spec):
    """A rule that gives the right answer though up to `f` of the sites in a buffer lie. See `core.rules.robust`."""

    kind: RobustKind
    """The rule that makes a version of updates of which some may lie."""
    f: Annotated[int, Field(ge=1, le=10**4)] = 2
    """So many sites may lie; a version then takes at least 2 f + 3 sites, and so does min_sites."""

    @property
    def least_sites(self) -> int:
        """So many distinct sites must be in a buffer: 2 f + 3."""
        return least_sites(self.f)


class TargetSpec(Spec):
    """Stop when the mean of `metric` over the sites is on the good side of a bound. See `job.Job`."""

    metric: Metric
    """Name of a metric that the task reports, such as auc."""
    at_least: Value | None = None
    """The job ends when the sites' mean is at least this; exactly one of at_least and at_most is given."""
    at_most: Value | None = None
    """The job ends when the sites' mean is at most this."""

    @classmethod
    def check_given(cls, given: frozenset[str]) -> str | None:
        return exactly_one(given, ("at_least", "at_most"))

    @property
    def better(self) -> Literal["higher", "lower"]:
        return "higher" if self.at_least is not None else "lower"


class PatienceSpec(Spec):
    """Stop when `versions` scored versions in a row did not improve the mean of `metric`. See `job.Job`."""

    versions: Count
    """So many scored versions in a row without improvement end the job; `patience: 10` in short."""
    metric: Metric = "loss"
    """Name of the metric; in short that of the target, where there is one."""
    better: Literal["higher", "lower"] = "lower"
    """Which way is an improvement; in short as the target says, where there is one."""


class StopSpec(Spec):
    """When the job ends: at least one rule; the first that is reached ends it.

    `patience: 10` in short watches the metric of `target` when there is one, otherwise `loss`, lower is better.
    """

    versions: Count | None = None
    """The job ends at this version of the model."""
    updates: Count | None = None
    """The job ends when so many updates were taken."""
    wall_time_s: Seconds | None = None
    """The job ends so many seconds after it started."""
    target: TargetSpec | None = None
    """The job ends when a metric is good enough."""
    patience: PatienceSpec | None = None
    """The job ends when a metric no longer improves."""

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
