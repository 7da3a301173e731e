"""What a hospital allows, as it stands in its `policy.toml`: `deploy/docs/policy.md` says what every key refuses.

Every key must be there: a file from which one was lost allows nothing, it does not allow more. What is not limited says
so with the word "any". A later release that adds a key reads it in files of a later `format` only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from fedbus.core.protocol.messages import check_name
from fedbus.core.spec.kinds import KINDS
from fedbus.core.spec.sections import LocalSpec, Spec
from fedbus.core.spec.text import problems_of
from fedbus.errors import Problem

ANY = "any"
Any_ = Literal["any"]
Word = Annotated[str, Field(min_length=1, max_length=200)]
Words = Annotated[tuple[Word, ...], Field(strict=False, max_length=1000)]
Limit = Annotated[int, Field(ge=1, le=10**15)] | Any_
Number = Annotated[int | float, Field(ge=-(10**15), le=10**15)]
FINGERPRINT = re.compile(r"([0-9a-f]{4}-){3}[0-9a-f]{4}")
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES = 24 * 60
PARAM = re.compile(r"(task_config|local)(\.[^.]+)+")
_PATTERN = re.compile(r"[*?\[]")
_WINDOW = re.compile(r"([a-z,-]{3,40}) ([0-9]{2}):([0-9]{2})-([0-9]{2}):([0-9]{2})")
_TAGS = "<any>", "<list>", "<between>"


def _form(value: object) -> str:
    """Which of the forms that a key may have was meant: its errors alone are then said."""
    if isinstance(value, str):
        return _TAGS[0]
    return _TAGS[2] if isinstance(value, Mapping | Between) else _TAGS[1]


def _any_or_list(value: object) -> str:
    return _TAGS[0] if isinstance(value, str) else _TAGS[1]


def _a_param(name: str) -> str:
    """The name of what a job may set, as it must stand for a job to be able to set it. Raises ValueError."""
    if not PARAM.fullmatch(name):
        raise ValueError(f"expected keys such as local.steps or task_config.hidden, got {name[:80]!r}")
    if _PATTERN.search(name):
        raise ValueError(f'{name[:80]!r} is no pattern here: list each key, or say params = "any"')
    first, _, local = name.partition(".")
    if first == "local" and local not in LocalSpec.model_fields:
        known = ", ".join(f"local.{one}" for one in LocalSpec.model_fields)
        raise ValueError(f"jobs have no {name[:80]!r}; known: {known}")
    return name


class Window(Spec):
    """Minutes of the day from `start` to before `end` on these days (0 is Monday); over midnight if `end` is lower."""

    days: frozenset[int]
    start: int
    end: int

    @property
    def over_midnight(self) -> bool:
        return self.end < self.start


def window_of(text: object) -> object:
    """Read `mon-fri 19:00-07:00` or `sat,sun 00:00-24:00`. Raises ValueError."""
    if not isinstance(text, str):
        return text
    found = _WINDOW.fullmatch(text)
    if found is None:
        raise ValueError(f"expected days and times such as 'mon-fri 19:00-07:00', got {text[:40]!r}")
    start, end = (int(found[n]) * 60 + int(found[n + 1]) for n in (2, 4))
    if max(int(found[3]), int(found[5])) > 59 or start >= DAY_MINUTES or end > DAY_MINUTES or start == end:
        raise ValueError(f"expected two times of a day, 00:00 to 24:00, got {text[:40]!r}")
    return Window(days=frozenset(_days(found[1])), start=start, end=end)


def _days(text: str) -> list[int]:
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first not in DAYS or (last or first) not in DAYS or part.endswith("-"):
            raise ValueError(f"expected days of {', '.join(DAYS)}, such as mon-fri or sat,sun; got {text[:40]!r}")
        begin = DAYS.index(first)
        found += [(begin + n) % 7 for n in range((DAYS.index(last or first) - begin) % 7 + 1)]
    return found


class Submitter(Spec):
    """Who may submit: a login, and the fingerprint of its key, with which the job is then signed."""

    name: Word
    """Name of the submitter."""
    fingerprint: str
    """Fingerprint of its key, four groups of four hex digits; "any" takes its name alone."""

    @field_validator("name")
    @classmethod
    def _a_name(cls, value: str) -> str:
        return check_name("submitter", value)

    @field_validator("fingerprint")
    @classmethod
    def _a_fingerprint(cls, value: str) -> str:
        if value != ANY and not FINGERPRINT.fullmatch(value):
            raise ValueError(f"expected four groups of four hex digits (3f2a-91bc-...), or any; got {value[:40]!r}")
        return value


class Between(Spec):
    """A number within bounds, both included."""

    min: Number
    max: Number

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


OneOf = Annotated[tuple[bool | int | float | str, ...], Field(strict=False, min_length=1, max_length=1000)]
Range = Annotated[
    Annotated[Any_, Tag("<any>")] | Annotated[OneOf, Tag("<list>")] | Annotated[Between, Tag("<between>")],
    Discriminator(_form),
]
Params = Annotated[dict[Annotated[str, AfterValidator(_a_param)], Range], Field(max_length=1000)]
Submitters = Annotated[tuple[Submitter, ...], Field(strict=False, max_length=1000)]


class JobRules(Spec):
    """Which jobs this site takes part in."""

    submitters: Annotated[
        Annotated[Any_, Tag("<any>")] | Annotated[Submitters, Tag("<list>")], Discriminator(_any_or_list)
    ]
    """Who may submit; an empty list is nobody."""
    kinds: Words
    """Which kinds of jobs: training, evaluate, data-check."""
    min_contributors: Annotated[int, Field(ge=1, le=10**6)]
    """So many sites must be in every version of the model."""
    min_batch_size: Annotated[int, Field(ge=1, le=10**6)]
    """Smallest local batch."""
    min_examples: Annotated[int, Field(ge=1, le=10**9)]
    """An update made of fewer examples does not leave."""
    max_steps_per_update: Limit
    """Most local steps of one update."""
    max_steps_per_day: Limit
    """Most local steps of all jobs in one day."""

    @field_validator("kinds")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(value) - set(KINDS)):
            raise ValueError(f"expected kinds of {', '.join(KINDS)}; got {', '.join(unknown)}")
        return value


class PrivacyRules(Spec):
    """What must be done to an update before it is coded."""

    filters: Words
    """Filters that a job must promise."""


class HourRules(Spec):
    """When this site trains, scores, and lets anything of its data leave."""

    zone: Annotated[str, Field(pattern=r"^[A-Za-z0-9_+/-]{1,64}$")]
    """Name of the time zone, such as Europe/Berlin; also of the day that limits are counted for."""
    open: Annotated[tuple[Annotated[Window, BeforeValidator(window_of)], ...], Field(strict=False, max_length=100)]
    """Windows such as 'mon-fri 19:00-07:00'; an empty list is never."""


class OutRules(Spec):
    """What may leave beside the updates."""

    bytes_per_day: Limit
    """Most bytes that leave in one day, all jobs together."""
    metrics: Words
    """Names of metrics that leave, as patterns such as 'dice*'; an empty list lets none."""
    intervals: bool
    """Whether it leaves how sure a metric is."""
    statistics: bool
    """Whether statistics of the data leave, in data checks."""
    prints: bool
    """Whether salted prints of examples leave, in data checks."""
    local_models: bool
    """Whether the site's own local model leaves at the end of a job."""


class TaskRules(Spec):
    """What a job may ask of one task."""

    data: Annotated[Annotated[Any_, Tag("<any>")] | Annotated[Words, Tag("<list>")], Discriminator(_any_or_list)]
    """Tags of the site's data (`data_tags` of its settings) that the task may see: all of them must be listed."""
    params: Annotated[Annotated[Any_, Tag("<any>")] | Annotated[Params, Tag("<list>")], Discriminator(_any_or_list)]
    """What a job may set, task_config.* and local.*: nothing else, but what it leaves at its default."""


class HospitalPolicy(Spec):
    """The whole file."""

    format: Literal[1]
    """How the file is read."""
    jobs: JobRules
    privacy: PrivacyRules
    hours: HourRules
    out: OutRules
    tasks: Annotated[dict[str, TaskRules], Field(max_length=1000)]
    """By name: the tasks that may run here."""


def parse_policy(data: Mapping[str, Any]) -> HospitalPolicy | list[Problem]:
    """Validate what TOML gives: the policy, or every problem with its path."""
    try:
        return HospitalPolicy.model_validate(dict(data))
    except ValidationError as exc:
        return [
            Problem(path=".".join(step for step in one.path.split(".") if step not in _TAGS), message=one.message)
            for one in problems_of(exc, HospitalPolicy)
        ]
