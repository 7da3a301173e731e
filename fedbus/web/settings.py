"""Settings of the status page: flags, then FEDBUS_WEB_*, then `[web]` of the TOML file, then defaults.

The page logs in as a submitter. `broker_url` and `kit` here are the page's own; `fedbus web` without them takes those
of the submitter. A page on an address that others reach is refused unless somebody is asked who they are.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, Field, IPvAnyNetwork, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from fedbus.console.settings import LOGIN, SubmitterSettings
from fedbus.errors import SettingsError
from fedbus.runtime.settings import default_home, read_toml

PREFIX = "FEDBUS_WEB_"
LEAST_TOKEN, MOST_TOKEN = 16, 512
NO_BROKER = (
    "the page needs a login of its own, a submitter's, which may ask and follow what happens: set FEDBUS_WEB_KIT to the"
    " folder of a submitter's kit, or FEDBUS_WEB_BROKER_URL to amqps://submitter:PASSWORD@HOST/VHOST"
)


def _several(value: Any) -> Any:
    """A list, also as one text with commas, as variables and flags give it."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Names = Annotated[tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]{1,253}$")], ...], NoDecode]
Networks = Annotated[tuple[IPvAnyNetwork, ...], NoDecode]


class WebSettings(BaseSettings):
    """`[web]` in the TOML file.

    port: 0 is a free one, which is printed. token_file: a file with the word that lets somebody in. proxy_header: where
    a proxy that has signed people in writes who it is, such as X-Forwarded-User; believed from `trusted_proxies` alone.
    hosts: names of the page beside its address; of all others nothing is answered. read_only: nobody submits or aborts.
    tls_cert, tls_key: PEM files; without them the page speaks plain HTTP. docs: the built documentation, for /docs.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True)
    table: ClassVar[str] = "web"

    host: Annotated[str, Field(min_length=1, max_length=253)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8765
    hosts: Annotated[Names, BeforeValidator(_several)] = ()
    token_file: Path | None = None
    proxy_header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{0,64}$")] = ""
    trusted_proxies: Annotated[Networks, BeforeValidator(_several)] = ()
    read_only: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    kit: Path | None = None
    broker_url: SecretStr | None = None
    docs: Path | None = None

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *args: Any, **sources: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        environment = sources.get("env_settings") or args[0]
        table = read_toml().get(cls.table, {})
        return init_settings, environment, InitSettingsSource(settings_cls, table if isinstance(table, dict) else {})

    @classmethod
    def load(cls, **flags: object) -> Self:
        """Read all sources; flags that are None were not given. Raises SettingsError naming each wrong key."""
        given: Mapping[str, Any] = {name: value for name, value in flags.items() if value is not None}
        try:
            return cls(**given)
        except ValidationError as exc:
            raise SettingsError("\n".join(_problem(error) for error in exc.errors())) from None

    @model_validator(mode="after")
    def _never_open_by_accident(self) -> Self:
        if bool(self.proxy_header) != bool(self.trusted_proxies):
            raise ValueError(
                "proxy_header and trusted_proxies go together: the header is believed from these addresses alone"
                " (--proxy-header X-Forwarded-User --trusted-proxy 10.0.0.5)"
            )
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together")
        if not self.loopback and self.token_file is None and not self.proxy_header:
            raise ValueError(
                f"host {self.host} is reached by others, and nobody would be asked who they are: give --token-file FILE"
                f" with a word of {LEAST_TOKEN} characters or more (openssl rand -base64 24 > FILE), or --proxy-header"
                " and --trusted-proxy of a proxy that signs people in, or --host 127.0.0.1"
            )
        return self

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches the page."""
        return self.host == "localhost" or (_is_address(self.host) and ipaddress.ip_address(self.host).is_loopback)

    def token(self) -> str | None:
        """What lets somebody in; None: nobody has to say it. Raises SettingsError."""
        if self.token_file is None:
            return None
        try:
            with self.token_file.open(encoding="utf-8") as file:
                word = file.read(4 * MOST_TOKEN).strip()
        except (OSError, UnicodeDecodeError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else "it is no text"
            raise SettingsError(
                f"--token-file {self.token_file}: cannot be read: {why}; make one: openssl rand -base64 24 > FILE"
            ) from exc
        if not LEAST_TOKEN <= len(word) <= MOST_TOKEN or not word.isascii() or len(word.split()) != 1:
            raise SettingsError(
                f"--token-file {self.token_file}: expected one word of {LEAST_TOKEN} to {MOST_TOKEN} ASCII characters;"
                " make one: openssl rand -base64 24 > FILE"
            )
        return word

    def submitter(self, *, alone: bool) -> SubmitterSettings:
        """The login of the page on the bus. alone: the submitter's settings are no other daemon's, so they count too.

        Raises SettingsError when there is none.
        """
        if self.kit is not None or self.broker_url is not None:
            return SubmitterSettings.load(kit=self.kit, broker_url=self.broker_url)
        if alone:
            return SubmitterSettings.load()
        login_file = default_home() / "broker" / "logins" / f"{LOGIN}.url"
        try:
            return SubmitterSettings.load(broker_url=login_file.read_text().strip())
        except OSError as exc:
            raise SettingsError(NO_BROKER) from exc


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _problem(error: Any) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    if not error["loc"]:
        return message
    name = str(error["loc"][0])
    got = "" if name == "broker_url" or error["type"] == "extra_forbidden" else f", got {error['input']!r}"
    return f"{name}: {message.lower()}{got} (set it by flag, {PREFIX}{name.upper()} or in [web] of the TOML file)"
