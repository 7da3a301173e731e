"""The spec of a job that only scores: every site measures given models on its own test data, and none is trained.

    kind: evaluate
    name: before-and-after
    task: heart_disease
    models:                          # one after the other; every site scores each of them
      - {job: heart-4-hospitals-0c1d2e3f, version: best}    # what a job that has ended has left: best, last, its number
      - {job: heart-4-hospitals-0c1d2e3f, site: ucsf}       # the local model that a site has left there
      - {file: pretrained.safetensors}                      # a file in the aggregator's params folder
    compare: false                   # true: also how the others differ from the first, on the same test cases
    metric: null                     # what the comparison is about, such as dice
    wall_time_s: null                # the job ends by then, with what was measured

and the keys of `head`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from fedbus.core.protocol.messages import check_name
from fedbus.core.spec.head import JobSpec
from fedbus.core.spec.sections import Seconds, Spec, exactly_one, plain_file_name
from fedbus.core.spec.text import SpecValueError
from fedbus.core.words import counted

MOST_MODELS = 32


class ModelSpec(Spec):
    """A model that is there: a version that a job has left, or a file."""

    job: str | None = None
    """The id of a job that has ended."""
    version: Literal["last", "best"] | Annotated[int, Field(ge=0, le=10**12)] | None = None
    """Which version of that job: last, best, or its number; null is last."""
    site: str | None = None
    """The local model that this site has left at the end of that job, instead of a version."""
    file: str | None = None
    """A safetensors file in the aggregator's params folder, instead of a job."""

    @classmethod
    def check_given(cls, given: frozenset[str]) -> str | None:
        if "file" in given and "version" in given:
            return "version belongs to job; a file has no versions"
        if "site" in given and given & {"file", "version"}:
            return "site belongs to job, and stands instead of version"
        return exactly_one(given, ("job", "file"))

    @field_validator("job")
    @classmethod
    def _job_name(cls, value: str | None) -> str | None:
        return None if value is None else check_name("job", value)

    @field_validator("site")
    @classmethod
    def _site_name(cls, value: str | None) -> str | None:
        return None if value is None else check_name("site", value)

    @field_validator("file")
    @classmethod
    def _file_name(cls, value: str | None) -> str | None:
        return plain_file_name(value)

    @property
    def says(self) -> str:
        """The model in words."""
        if self.site is not None:
            return f"{self.job}, local model of {self.site}"
        return self.file if self.file is not None else f"{self.job}, version {self.wanted}"

    @property
    def wanted(self) -> str | int:
        """Which version of its job."""
        return "last" if self.version is None else self.version


class EvaluateSpec(JobSpec):
    """One job that scores."""

    kind: Literal["evaluate"]
    """Every site scores the same models, none is trained."""
    models: Annotated[tuple[ModelSpec, ...], Field(strict=False)]
    """The models, in the order in which they are scored."""
    compare: bool = False
    """Also how each model differs from the first, with intervals from the same test cases at each site."""
    metric: Annotated[str, Field(min_length=1, max_length=80)] | None = None
    """The metric that the comparison is about, named before anybody looks; null: dice, auc, or what there is."""
    wall_time_s: Seconds | None = None
    """The job ends by then, with what was measured; null waits for every site that is there."""

    new_keys: ClassVar[Mapping[str, Any]] = MappingProxyType({**JobSpec.new_keys, "compare": False, "metric": None})

    def to_offer(self) -> dict[str, Any]:
        offer = super().to_offer()
        models = ({k: v for k, v in model.items() if (k, v) != ("site", None)} for model in offer["models"])
        return offer | {"models": list(models)}

    @field_validator("models")
    @classmethod
    def _some_models(cls, value: tuple[ModelSpec, ...]) -> tuple[ModelSpec, ...]:
        if not 1 <= len(value) <= MOST_MODELS:
            raise ValueError(f"name 1 to {MOST_MODELS} models; got {len(value)}")
        return value

    @model_validator(mode="after")
    def _something_to_compare(self) -> Self:
        if self.compare and len(self.models) < 2:
            raise SpecValueError("compare", "needs two models: the first is what the others are compared to")
        if self.metric is not None and not self.compare:
            raise SpecValueError("metric", "belongs to compare: true")
        return self

    def lines(self) -> list[tuple[str, str]]:
        by = "" if self.wall_time_s is None else f", or after {self.wall_time_s:g} s"
        return [
            ("starts", f"when {counted(self.least_sites, 'site')} accepted"),
            ("each site", "scores the models below on its own test data, nothing is trained"),
            *((f"model {number}", model.says) for number, model in enumerate(self.models)),
            *([("compares", "the others to model 0, on the same test cases")] if self.compare else []),
            ("stops", f"when every site that is there has answered{by}"),
        ]
