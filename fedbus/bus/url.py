"""The broker's address: parsed once, printed only with its password masked."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from fedbus.errors import SettingsError

PORTS = {"amqp": 5672, "amqps": 5671}


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerUrl:
    """An AMQP URL taken apart; `full` holds the password and stays out of the repr."""

    full: str = field(repr=False)
    scheme: str
    user: str
    host: str
    port: int
    vhost: str

    @classmethod
    def parse(cls, text: str) -> BrokerUrl:
        """Parse `amqp[s]://user:password@host[:port]/vhost`; SettingsError when it is not one."""
        try:
            parts = urlsplit(text)
            scheme, user, host, port = parts.scheme, parts.username, parts.hostname, parts.port
        except ValueError as exc:
            raise SettingsError(f"broker URL is malformed ({exc}); {_EXPECTED}") from exc
        if scheme not in PORTS or not host or not user:
            missing = "a scheme amqp or amqps" if scheme not in PORTS else "a host" if not host else "a user"
            raise SettingsError(f"broker URL lacks {missing}; {_EXPECTED}")
        vhost = unquote(parts.path.removeprefix("/")) or "/"
        return cls(full=text, scheme=scheme, user=unquote(user), host=host, port=port or PORTS[scheme], vhost=vhost)

    def __str__(self) -> str:
        path = "" if self.vhost == "/" else f"/{self.vhost}"
        return f"{self.scheme}://{self.user}:***@{self.host}:{self.port}{path}"


_EXPECTED = (
    "expected amqp://user:password@host:5672/vhost "
    "(percent-encode special characters of the password); see FEDBUS_BROKER_URL"
)
