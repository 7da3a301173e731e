"""Settings of the daemons: flags, then FEDBUS_* environment, then a TOML file, then defaults.

One frozen class per daemon derives from DaemonSettings and names its table in the TOML file (`[aggregator]`, `[site]`,
`[submitter]`). The file is the one of `FEDBUS_CONFIG`; without that, of a participant with a kit, it is `site.toml`,
`aggregator.toml` or `submitter.toml` in the kit's folder, and relative paths in it begin there. Secrets are SecretStr:
they never appear in logs or errors.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from fedbus.errors import SettingsError, TrustError

if TYPE_CHECKING:
    from fedbus.trust.identity import Identity

YEAR_S = 366 * 86_400.0
Seconds = Annotated[float, Field(gt=0, le=YEAR_S)]
"""A time to wait; beyond a year it is a mistake in the unit."""
TABLES = ("site", "aggregator", "submitter")
Port = Annotated[int, Field(ge=0, le=65_535)]
Address = Annotated[str, AfterValidator(lambda text: str(ip_address(text)))]
Threads = Annotated[int, Field(ge=1, le=4096)]
KeepDays = Annotated[int, Field(ge=62, le=36_600)]
LOOPBACK = "127.0.0.1"
KEEP_DAYS = 365
"""Of audit logs: 6 to 12 months is what the CNIL recommends (deliberation 2021-122)."""


def default_home() -> Path:
    """`$FEDBUS_HOME`, or `~/.fedbus`: the private broker, its logins and the daemons' state on one machine.

    Raises SettingsError for a user without a home, as containers have them.
    """
    if given := os.environ.get("FEDBUS_HOME"):
        return Path(given)
    try:
        home = Path.home()
    except RuntimeError:
        home = Path()
    if not home.is_absolute():
        raise SettingsError(
            f"no folder for logins and state: this user ({os.getuid()}) has no home, set FEDBUS_HOME to a folder that "
            "lasts"
        )
    return home / ".fedbus"


class DaemonSettings(BaseSettings):
    """What every daemon needs."""

    model_config = SettingsConfigDict(
        env_prefix="FEDBUS_", frozen=True, extra="forbid", env_ignore_empty=True, allow_inf_nan=False
    )
    table: ClassVar[str] = ""
    flags: ClassVar[Mapping[str, str | None]] = MappingProxyType({})
    """Command line flags that are not named like their field; None for a field that has none."""

    broker_url: SecretStr | None = None
    kit: Path | None = None
    """The folder from `fedbus provision`: certificate, key, CA. With it the certificate logs in, over TLS alone."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"
    fault: str | None = None
    """For chaos runs, see `runtime.faults`: where this process kills itself."""

    @field_validator("kit")
    @classmethod
    def _whole(cls, kit: Path | None) -> Path | None:
        """Words and paths made of it say the same in every folder, and there is a name where `--kit .` was given."""
        return None if kit is None else kit.absolute()

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *args: Any, **sources: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        environment = sources.get("env_settings") or args[0]
        given = (init_settings.init_kwargs if isinstance(init_settings, InitSettingsSource) else {}).get("kit")
        return init_settings, environment, InitSettingsSource(settings_cls, _toml_table(cls, given or _kit()))

    @classmethod
    def load(cls, **flags: object) -> Self:
        """Read all sources; flags that are None were not given. Raises SettingsError naming each wrong key."""
        given: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
        try:
            return cls(**given)
        except ValidationError as exc:
            problems = [_problem(cls, error) for error in exc.errors()]
            raise SettingsError("\n".join(problems)) from None

    def identity(self) -> Identity | None:
        """Who logs in, by the kit; None without one: then a password does. Raises SettingsError."""
        if self.kit is None:
            return None
        from fedbus.trust.identity import Identity
        from fedbus.trust.subjects import Role

        try:
            return Identity.load(self.kit, role=Role(self.table))
        except TrustError as exc:
            raise SettingsError(f"FEDBUS_KIT={self.kit}: {exc}") from exc

    def url_for(self, login: str) -> str:
        """The broker URL, given or found among the logins of this machine's private broker."""
        if self.broker_url is not None:
            return self.broker_url.get_secret_value()
        if self.kit is not None:
            self.identity()  # a kit that is none is said first
            raise SettingsError(
                f"no broker is known: {self.kit / f'{self.table}.toml'} says no broker_url; write "
                f'broker_url = "amqps://HOST:5671/fedbus" into its table [{self.table}], or set FEDBUS_BROKER_URL'
            )
        login_file = default_home() / "broker" / "logins" / f"{login}.url"
        try:
            if login_file.exists():
                return login_file.read_text().strip()
        except OSError as exc:
            raise SettingsError(
                f"login file {login_file} cannot be read: {exc.strerror}; set FEDBUS_BROKER_URL, or run as its owner"
            ) from exc
        raise SettingsError(
            f"no broker is known for login {login!r}: set FEDBUS_BROKER_URL (amqps://user:password@host:5671/vhost) or "
            f"give --broker-url; on one machine, `fedbus broker start --site NAME` writes {login_file}"
        )


def anothers(settings: type[DaemonSettings]) -> list[str]:
    """Variables that are set and another daemon's, where this one has a name of its own for the same, in words."""
    prefix = "FEDBUS_"
    given = [name for name, value in sorted(os.environ.items()) if value and name.upper().startswith(prefix)]
    own = {name: f"{settings.table}_{name.upper().removeprefix(prefix).lower()}" for name in given}
    return [
        f"{name} is another daemon's setting and not read here; this one's is {prefix}{field.upper()}"
        for name, field in own.items()
        if field in settings.model_fields
    ]


def read_toml() -> dict[str, Any]:
    """The whole settings file; of a kit all of its files as one; empty when there is none. Raises SettingsError."""
    if path := os.environ.get("FEDBUS_CONFIG"):
        return _read(Path(path))
    kit = _kit()
    return {} if kit is None else {key: value for path in kit_files(kit) for key, value in _read(path).items()}


def kit_files(kit: Path) -> Iterator[Path]:
    """The settings files in a kit's folder: one, as `fedbus provision` makes it."""
    return (path for table in TABLES if (path := kit / f"{table}.toml").exists())


def _kit() -> Path | None:
    given = os.environ.get("FEDBUS_KIT")
    return Path(given).absolute() if given else None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as exc:
        raise SettingsError(f"{_named(path)}: cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        raise SettingsError(f"{_named(path)}: not valid TOML: {exc}") from exc


def _named(path: Path) -> str:
    return f"FEDBUS_CONFIG={path}" if str(path) == os.environ.get("FEDBUS_CONFIG") else str(path)


def _toml_table(cls: type[DaemonSettings], kit: Path | None) -> dict[str, Any]:
    """What the file says to this daemon: its table, and of the keys above all tables those that it has."""
    config = os.environ.get("FEDBUS_CONFIG")
    path = Path(config) if config else None if kit is None else Path(kit).absolute() / f"{cls.table}.toml"
    if path is None or not (config or path.exists()):
        return {}
    data = _read(path)
    own = data.pop(cls.table, {})
    if not isinstance(own, dict):
        raise SettingsError(f"{_named(path)}: {cls.table} must be a table, [{cls.table}], got {type(own).__name__}")
    found = {key: value for key, value in data.items() if key in cls.model_fields} | own
    return found if config else _in_folder(cls, found, path.parent)


def _in_folder(model: type[BaseModel], found: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The same with relative paths made those of the folder, in tables inside too."""
    begun = dict(found)
    for name, field in model.model_fields.items():
        value, kinds = found.get(name), (field.annotation, *get_args(field.annotation))
        inner = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if Path in kinds and isinstance(value, str):
            begun[name] = str(folder / value)
        elif inner is not None and isinstance(value, dict):
            begun[name] = _in_folder(inner, value, folder)
    return begun


def _problem(cls: type[DaemonSettings], error: Any) -> str:
    name = str(error["loc"][0])
    if len(error["loc"]) > 1:
        path = ".".join(map(str, error["loc"]))
        return f"{path}: {error['msg'].lower()} (set it in [{cls.table}.{name}] of the TOML file)"
    if error["type"] == "extra_forbidden":
        known = ", ".join(cls.model_fields)
        return f"{name}: no such setting (in [{cls.table}] of the TOML file); known: {known}"
    flag = cls.flags.get(name, f"--{name.replace('_', '-')}")
    where = f"FEDBUS_{name.upper()} or {name} in [{cls.table}]"
    secret = name == "broker_url"
    got = "" if secret or error["type"] == "missing" else f", got {error['input']!r}"
    return f"{name}: {error['msg'].lower()}{got} (set {f'{flag}, ' if flag else ''}{where})"
