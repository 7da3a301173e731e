"""Settings of the daemons: flags, then FEDBUS_* environment, then a TOML file, then defaults.

One frozen class per daemon derives from DaemonSettings and names its table in the TOML file (`[aggregator]`, `[site]`,
`[submitter]`). The file is the one of `FEDBUS_CONFIG`. Secrets are SecretStr: they never appear in logs or errors.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from fedbus.errors import SettingsError


def default_home() -> Path:
    """`$FEDBUS_HOME`, or `~/.fedbus`: the private broker, its logins and the daemons' state on one machine."""
    return Path(os.environ.get("FEDBUS_HOME") or Path.home() / ".fedbus")


class DaemonSettings(BaseSettings):
    """What every daemon needs."""

    model_config = SettingsConfigDict(env_prefix="FEDBUS_", frozen=True, extra="forbid", env_ignore_empty=True)
    table: ClassVar[str] = ""

    broker_url: SecretStr | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *args: Any, **sources: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        environment = sources.get("env_settings") or args[0]
        return init_settings, environment, InitSettingsSource(settings_cls, _toml_table(cls))

    @classmethod
    def load(cls, **flags: object) -> Self:
        """Read all sources; flags that are None were not given. Raises SettingsError naming each wrong key."""
        given: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
        try:
            return cls(**given)
        except ValidationError as exc:
            problems = [_problem(cls.table, error) for error in exc.errors()]
            raise SettingsError("\n".join(problems)) from None

    def url_for(self, login: str) -> str:
        """The broker URL, given or found among the logins of this machine's private broker."""
        if self.broker_url is not None:
            return self.broker_url.get_secret_value()
        login_file = default_home() / "broker" / "logins" / f"{login}.url"
        if login_file.exists():
            return login_file.read_text().strip()
        raise SettingsError(
            f"no broker is known for login {login!r}: set FEDBUS_BROKER_URL (amqps://user:password@host/vhost) or give"
            f" --broker-url; on one machine, `fedbus broker start --site NAME` writes {login_file}"
        )


def _toml_table(cls: type[DaemonSettings]) -> dict[str, Any]:
    path = os.environ.get("FEDBUS_CONFIG")
    if not path:
        return {}
    try:
        data = tomllib.loads(Path(path).read_text())
    except OSError as exc:
        raise SettingsError(f"FEDBUS_CONFIG={path}: cannot be read: {exc.strerror}") from exc
    except tomllib.TOMLDecodeError as exc:
        raise SettingsError(f"FEDBUS_CONFIG={path}: not valid TOML: {exc}") from exc
    shared = {key: value for key, value in data.items() if not isinstance(value, dict)}
    return shared | dict(data.get(cls.table, {}))


def _problem(table: str, error: Any) -> str:
    name = ".".join(str(part) for part in error["loc"])
    where = f"--{name.replace('_', '-')}, FEDBUS_{name.upper()} or {name} in [{table}]"
    if error["type"] == "extra_forbidden":
        return f"{name}: no such setting ({where})"
    return f"{name}: {error['msg'].lower()} (set {where})"
