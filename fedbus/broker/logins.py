"""Login files: `<name>.url`, mode 0600, holding one AMQP URL with its password.

What lives here: making logins, keeping passwords from one start to the next until one is renewed or a login removed,
writing files nobody else reads. What the broker knows of them is `node`'s and `definitions`' business.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from fedbus.broker.definitions import STAFF, VHOST, Login
from fedbus.bus.url import PORTS, BrokerUrl, is_loopback, places_of
from fedbus.core.protocol.messages import check_name
from fedbus.errors import NodeError, SettingsError


class LoginFolder:
    """The login files in `folder`, which need not exist yet. Raises NodeError with what to do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.url"

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(path.stem for path in self.folder.glob("*.url")))

    def url(self, name: str, *, vhost: str = VHOST) -> str:
        """AMQP URL of a login, password included."""
        return replace(self._read(name), vhost=vhost).with_password()

    def write(self, sites: Sequence[str], *, address: str, renew: Collection[str] = ()) -> list[Login]:
        """Write the files of aggregator, submitter, all known and these sites, with URLs at `address`: host:port, or
        several with commas between.

        Elsewhere than on loopback these are amqps://: nobody connects there without TLS.
        Passwords that exist are kept but for those to `renew`; the others are made.
        """
        for name in sites:
            if name in STAFF:
                raise NodeError(f"a site cannot be named {name!r}: that is the login of the {name}")
        scheme, places = _places(address)
        try:
            names = dict.fromkeys([*map(str, STAFF), *self.names(), *sites])
            logins = [Login(name=name) if name in renew else self._login(name) for name in names]
        except ValueError as exc:
            raise NodeError(str(exc)) from exc
        for login in logins:
            url = BrokerUrl(scheme=scheme, user=login.name, password=login.password, host="", port=0, vhost=VHOST)
            write_private(self.path(login.name), f"{url.at(places).with_password()}\n")
        return logins

    def remove(self, site: str) -> None:
        """Delete the login file of a site; one that is not there is no error."""
        self.check_site(site)
        try:
            self.path(site).unlink(missing_ok=True)
        except OSError as exc:
            raise unwritable(self.folder, exc) from exc

    def check_site(self, name: str) -> None:
        """NodeError when this cannot be a site's login."""
        try:
            check_name("login", name)
        except ValueError as exc:
            raise NodeError(str(exc)) from exc
        if name in STAFF:
            raise NodeError(
                f"{name!r} is the login of the {name}, not of a site: it cannot be removed; `fedbus broker rotate "
                f"{name}` gives it a new password"
            )

    def _login(self, name: str) -> Login:
        return Login(name=name, password=self._read(name).password) if self.path(name).exists() else Login(name=name)

    def _read(self, name: str) -> BrokerUrl:
        path = self.path(name)
        try:
            return BrokerUrl.take_apart(path.read_text())  # before TLS was asked for it may say amqp://
        except FileNotFoundError as exc:
            raise NodeError(f"there is no login {name!r} in {self.folder}: `fedbus broker add-site {name}`") from exc
        except OSError as exc:
            raise NodeError(f"{path} cannot be read: {exc.strerror}; run as its owner") from exc
        except SettingsError as exc:
            raise NodeError(f"{path} is no login file: {exc}; delete it to get a new login") from exc


def _places(address: str) -> tuple[str, list[tuple[str, int]]]:
    """The scheme for all of them, and each host and port."""
    try:
        found = places_of(address, 0)
    except ValueError as exc:
        raise NodeError(
            f"address {address!r} {exc}; expected HOST:PORT such as broker.example.org:5671, commas between several"
        ) from exc
    scheme = "amqp" if all(is_loopback(host) for host, _ in found) else "amqps"
    return scheme, [(host, port or PORTS[scheme]) for host, port in found]


def write_private(path: Path, text: str, mode: int = 0o600) -> None:
    """Write whole or not at all, and never readable by others, not even for a moment."""
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
            file.write(text)
        part.replace(path)
    except OSError as exc:
        raise unwritable(path.parent, exc) from exc


def unwritable(folder: Path, exc: OSError) -> NodeError:
    return NodeError(f"{folder} cannot be written: {exc.strerror}; free it, or choose another folder with --dir")
