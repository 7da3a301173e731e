"""The folder of `fedbus broker definitions`, for a RabbitMQ that runs elsewhere: what it loads, and one file a login.

definitions.json   for the broker; hashes of passwords, no password
logins/NAME.url    what is kept from one time to the next
env/NAME.env       FEDBUS_BROKER_URL of one login, for its machine only
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedbus.broker.definitions import STAFF, VHOST, definitions
from fedbus.broker.logins import LoginFolder, unwritable, write_private
from fedbus.bus.topology import site_queue
from fedbus.errors import NodeError


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Where the broker's file and each login's lie; `left_out` are sites whose logins were deleted."""

    definitions: Path
    env: dict[str, Path]
    left_out: tuple[str, ...]
    renewed: tuple[str, ...]

    def at_the_broker(self) -> list[str]:
        """Commands for the broker's operator: an import adds and changes logins, it takes none away."""
        loaded = [f"rabbitmqctl import_definitions {self.definitions}"] if self.left_out or self.renewed else []
        for name in self.left_out:
            loaded += [
                f"rabbitmqctl delete_user {name}",
                f"rabbitmqctl close_all_user_connections {name} removed",
                f"rabbitmqctl delete_queue {site_queue(name)} -p {VHOST}",
            ]
        return [*loaded, *(f"rabbitmqctl close_all_user_connections {name} rotated" for name in self.renewed)]


def write_folder(folder: Path, sites: Sequence[str], *, address: str, renew: Collection[str] = ()) -> Written:
    """Write the folder for these sites and no others; without any, for those that it knows.

    Passwords that exist are kept, but for those to `renew`. NodeError with what to do.
    """
    logins = LoginFolder(folder / "logins")
    known = set(logins.names())
    if unknown := sorted(set(renew) - known):
        raise NodeError(f"there is no login {', '.join(unknown)} in {folder} to give another password")
    left_out = tuple(sorted(known - set(sites) - set(map(str, STAFF)))) if sites else ()
    if again := sorted(set(renew) & set(left_out)):
        raise NodeError(f"{', '.join(again)} cannot both be left out and get another password")
    for name in left_out:
        logins.remove(name)
        _forget(folder / "env" / f"{name}.env")
    made = logins.write(sites, address=address, renew=renew)
    # Readable by the broker's own user; it holds salted hashes, no passwords.
    write_private(folder / "definitions.json", json.dumps(definitions(made), indent=1) + "\n", 0o644)
    env = {login.name: folder / "env" / f"{login.name}.env" for login in made}
    for name, path in env.items():
        write_private(path, f"FEDBUS_BROKER_URL={logins.url(name)}\n")
    return Written(
        definitions=folder / "definitions.json", env=env, left_out=left_out, renewed=tuple(sorted(set(renew)))
    )


def _forget(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as exc:
        raise unwritable(path.parent, exc) from exc
