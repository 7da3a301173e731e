"""The head of every job spec, whatever its kind: what the job is called, what the sites run, and which sites.

Each kind adds its own keys: `training` and the other modules named in `kinds`, which also reads a spec of any kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    field_validator,
    model_validator,
)

from fedbus.core.protocol.messages import check_name
from fedbus.core.spec.sections import Spec
from fedbus.core.spec.text import SpecValueError, frozen_json, load_yaml, problems_of, shown, thawed_json
from fedbus.errors import JobSpecError, Problem

KIB = 1024
MIB = 1024 * KIB
MOST_CHUNK_BYTES = 8 * MIB

Name = Annotated[str, AfterValidator(lambda value: check_name("name", value))]
Sites = Annotated[
    tuple[Annotated[str, AfterValidator(lambda value: check_name("site", value))], ...], Field(strict=False)
]
FrozenJson = Annotated[Mapping[str, Any], PlainValidator(frozen_json), PlainSerializer(thawed_json)]


class JobSpec(Spec):
    """What every job says. Build one with `parse` or `parse_yaml`, which report every problem; never mutated then."""

    name: Name
    """1 to 40 of a-z, 0-9 and -; the id of the job is this and eight hex digits."""
    task: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    """Name of a task that the sites have installed."""
    task_config: FrozenJson = Field(default_factory=lambda: MappingProxyType({}))
    """Handed to the task as it stands; the task says what it knows."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of the first params and of the order of the examples."""
    min_sites: Annotated[int, Field(ge=1, le=10**6)] = 1
    """The job starts when so many sites have accepted, and a training pauses with fewer."""
    sites: Sites | None = None
    """Only these sites are asked, each named once; null asks every site."""
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    """Whose turn it is at a site that works for several jobs; higher goes first."""
    chunk_bytes: Annotated[int, Field(ge=256 * KIB, le=MOST_CHUNK_BYTES)] = MIB
    """Bytes of one message of an update or a version."""

    new_keys: ClassVar[Mapping[str, Any]] = MappingProxyType({"priority": 0})
    """Keys that the release before does not know, with what it does."""

    @field_validator("sites")
    @classmethod
    def _distinct_sites(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and (not value or len(set(value)) != len(value)):
            raise ValueError("name at least one site, and each site once; leave the key out to ask every site")
        return value

    @model_validator(mode="after")
    def _enough_sites(self) -> Self:
        if self.sites is not None and self.min_sites > len(self.sites):
            raise SpecValueError("min_sites", f"is {self.min_sites}, but sites lists only {len(self.sites)}")
        return self

    @property
    def least_sites(self) -> int:
        """So many sites must be there for the job to start."""
        return self.min_sites

    @classmethod
    def parse(cls, data: object) -> Self:
        """Validate `data`, a mapping such as JSON or YAML gives; JobSpecError lists every problem with its path."""
        if not isinstance(data, Mapping):
            message = f"a job spec is a mapping of keys to values, got {shown(data)}"
            raise JobSpecError([Problem(path="", message=message)])
        choices = cls.problems_of_choices(data)
        try:
            spec = cls.model_validate(dict(data))
        except ValidationError as exc:
            found = problems_of(exc, cls)
            raise JobSpecError(found + [p for p in choices if p not in found]) from exc
        return spec

    @classmethod
    def parse_yaml(cls, text: str) -> Self:
        """Parse a YAML (or JSON) text; JobSpecError also for its syntax, with the line."""
        return cls.parse(load_yaml(text))

    @classmethod
    def problems_of_choices(cls, data: Mapping[str, Any]) -> list[Problem]:
        """Check which keys go together even where another key of the section is wrong (pydantic would stop there)."""
        return []

    def lines(self) -> list[tuple[str, str]]:
        """Return what matters of this kind of job, each as a word and a phrase: see `outline`."""
        return []

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as JSON-able data with every default filled in; `parse` of it gives an equal spec."""
        return self.model_dump(mode="json")

    def to_offer(self) -> dict[str, Any]:
        """Return the spec as sites are offered it: a site of the release before reads one that asks for nothing new."""
        return {k: v for k, v in self.to_dict().items() if k not in self.new_keys or v != self.new_keys[k]}
