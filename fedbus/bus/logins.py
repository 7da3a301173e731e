"""Login files: `<name>.url`, mode 0600, holding one AMQP URL with its password.

What lives here: making logins, keeping passwords from one start to the next, writing files nobody else reads.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from fedbus.bus.definitions import STAFF, VHOST, Login
from fedbus.errors import NodeError


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
        try:
            return self.path(name).read_text().strip().rpartition("/")[0] + f"/{vhost}"
        except OSError as exc:
            raise NodeError(f"there is no login {name!r} in {self.folder}: `fedbus broker add-site {name}`") from exc

    def write(self, sites: Sequence[str], *, address: str) -> list[Login]:
        """Write the files of aggregator, submitter, all known and these sites, with URLs at `address` (host:port).

        Passwords that exist are kept, the others are made.
        """
        for name in sites:
            if name in STAFF:
                raise NodeError(f"a site cannot be named {name!r}: that is the login of the {name}")
        staff = [str(name) for name in STAFF]
        try:
            logins = [self._login(name) for name in dict.fromkeys([*staff, *self.names(), *sites])]
        except ValueError as exc:
            raise NodeError(str(exc)) from exc
        for login in logins:
            write_private(self.path(login.name), f"amqp://{login.name}:{login.password}@{address}/{VHOST}\n")
        return logins

    def _login(self, name: str) -> Login:
        path = self.path(name)
        if not path.exists():
            return Login(name=name)
        password = urlsplit(path.read_text().strip()).password
        if not password:
            raise NodeError(f"{path} holds no AMQP URL with a password: delete it to get a new login")
        return Login(name=name, password=password)


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
