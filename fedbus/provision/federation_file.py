"""`federation.yaml`: who takes part, and where the broker is."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fedbus.bus.url import MOST_PLACES, address_of, host_and_port
from fedbus.core.protocol.messages import check_name
from fedbus.core.spec.text import load_yaml, problems_of
from fedbus.errors import JobSpecError, Problem, SettingsError
from fedbus.trust.subjects import MAX_NUMBER, Role

HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,62})(\.[A-Za-z0-9]([A-Za-z0-9-]{0,62}))*")
# What a file's path may be in RabbitMQ's two configuration languages without any quoting.
PLAIN_PATH = re.compile(r"/[A-Za-z0-9._/+@-]*")
RESERVED = (Role.BROKER, Role.AGGREGATOR)
MAX_FILE_BYTES = 1 << 20


def _name(value: str) -> str:
    return check_name("a name", value)


Name = Annotated[str, Field(strict=True), AfterValidator(_name)]
Names = Annotated[tuple[Name, ...], Field(max_length=MAX_NUMBER + 1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BrokerPart(_Part):
    """`broker:`. `host` is what sites connect to, `folder` an absolute path: where the broker finds its files.

    `also`: the other nodes of a broker that is a cluster, `host` or `host:port`.
    """

    host: Annotated[str, Field(strict=True)]
    port: Annotated[int, Field(strict=True, ge=1, le=65535)] = 5671
    version: Literal["3.10", "4.x"] = "3.10"
    folder: Annotated[str, Field(strict=True)] | None = None
    also: Annotated[tuple[Annotated[str, Field(strict=True)], ...], Field(max_length=MOST_PLACES - 1)] = ()

    @field_validator("version", mode="before")
    @classmethod
    def _quoted(cls, value: object) -> object:
        if isinstance(value, float):
            raise ValueError(f'a version stands in quotes, "3.10" or "4.x": without them {value} is a number')
        return value

    @field_validator("host")
    @classmethod
    def _host(cls, value: str) -> str:
        return _checked_host(value, "without port")

    @field_validator("also")
    @classmethod
    def _also(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            try:
                host, _ = host_and_port(value, 5671)
            except ValueError as exc:
                raise ValueError(f"{value[:60]!r} {exc}") from None
            _checked_host(host, "and :port where it is another")
        return values

    @model_validator(mode="after")
    def _each_once(self) -> BrokerPart:
        if twice := [place for place in self.places if self.places.count(place) > 1]:
            raise ValueError(f"{address_of(*twice[0])} stands there twice: each node of the broker has its own address")
        return self

    @field_validator("folder")
    @classmethod
    def _folder(cls, value: str | None) -> str | None:
        if value is not None and not PLAIN_PATH.fullmatch(value):
            raise ValueError(f"{value[:60]!r} must be an absolute path of letters, digits and . _ - + @")
        return value

    @property
    def places(self) -> tuple[tuple[str, int], ...]:
        """Host and port of each node."""
        return ((self.host, self.port), *(host_and_port(each, self.port) for each in self.also))

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names that its certificate is for."""
        return tuple(dict.fromkeys(host for host, _ in self.places))

    @property
    def address(self) -> str:
        """`host:port` of each node, with commas between."""
        return ",".join(address_of(host, port) for host, port in self.places)


class FederationFile(_Part):
    """`federation` is the id that the CA is named by; it never changes. Sites get their numbers in this order."""

    federation: Name
    broker: BrokerPart
    submitters: Names = ("submitter",)
    sites: Names = ()

    @classmethod
    def parse(cls, text: str, *, where: str) -> FederationFile:
        """SettingsError with every problem and its path."""
        try:
            data = load_yaml(text)
        except JobSpecError as exc:
            raise _wrong(exc.problems, where) from exc
        problems = list(_clashes(data))
        try:
            found = cls.model_validate(data)
        except ValidationError as exc:
            raise _wrong([*problems_of(exc, cls), *problems], where) from exc
        if problems:
            raise _wrong(problems, where)
        return found

    @classmethod
    def load(cls, path: Path) -> FederationFile:
        try:
            with path.open("rb") as file:
                return cls.parse(file.read(MAX_FILE_BYTES + 1).decode(), where=str(path))
        except OSError as exc:
            raise SettingsError(f"cannot read {path}: {exc.strerror}") from exc
        except UnicodeDecodeError as exc:
            raise SettingsError(f"cannot read {path}: expected YAML in UTF-8, got other bytes ({exc})") from exc


def _checked_host(value: str, more: str) -> str:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        if not HOST.fullmatch(value):
            raise ValueError(
                f"{value[:60]!r} is no host name: expected one such as broker.example.org, {more}"
            ) from None
    return value


def _wrong(problems: Sequence[Problem], where: str) -> SettingsError:
    return SettingsError("\n".join(f"{where}: {each.path or 'the file'}: {each.message}" for each in problems))


def _clashes(data: object) -> Iterator[Problem]:
    """Names that are somebody else's already, whatever else is wrong with the file."""
    given = data if isinstance(data, dict) else {}
    groups = {"submitters": given.get("submitters", [Role.SUBMITTER.value]), "sites": given.get("sites")}
    taken: dict[str, str] = {name.value: "the federation's own daemons" for name in RESERVED}
    for group, names in groups.items():
        for index, name in enumerate(names if isinstance(names, list) else []):
            if not isinstance(name, str):
                continue
            if name in taken or (name == Role.SUBMITTER and group == "sites"):
                whose = taken.get(name, "submitters")
                yield Problem(path=f"{group}.{index}", message=f"{name!r} is a name of {whose}: choose another one")
            taken.setdefault(name, f"{group}.{index}")
