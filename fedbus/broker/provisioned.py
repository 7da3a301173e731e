"""The broker's folder of a provisioned federation, as a private node runs from it: on loopback, by certificate alone.

    folder/cert.pem, key.pem, ca.pem, crl/, definitions.json        made by `fedbus provision`, as are
           rabbitmq.conf, advanced.config, enabled_plugins          the files that say who gets in

The node takes all of them as they are, but for two things that belong to a machine: the address to listen at, which is
loopback, and the folder where the files lie.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedbus.broker.definitions import VHOST
from fedbus.bus.url import places_of
from fedbus.errors import NodeError

CONFIGURATION = ("rabbitmq.conf", "advanced.config", "enabled_plugins")
FILES = ("cert.pem", "key.pem", "ca.pem", "definitions.json", *CONFIGURATION)
LISTENER = re.compile(r"^listeners\.ssl\.\w+\s*=\s*(?:\S*:)?(\d{1,5})\s*$", re.MULTILINE)
DEFINITIONS = re.compile(r"^load_definitions\s*=\s*(\S.*)/definitions\.json\s*$", re.MULTILINE)
PLACES = re.compile(r"^# Reached at (\S+)$", re.MULTILINE)
HANDSHAKE_LIMIT_S = 5.0
# Definitions of a thousand sites have less than a megabyte.
MAX_DEFINITIONS_BYTES = 16 * 1024 * 1024


def node_folder(federation: Path) -> Path:
    """Where the private node of a provisioned federation keeps its own files: data, log, cookie."""
    return federation / "broker" / "node"


@dataclass(frozen=True, slots=True)
class ProvisionedBroker:
    """What `fedbus provision` made for the broker. Every method raises NodeError with what to do."""

    folder: Path

    @classmethod
    def of_federation(cls, federation: Path) -> ProvisionedBroker:
        """The broker's part of a federation's folder."""
        folder = (federation / "broker").absolute()
        missing = [name for name in FILES if not (folder / name).is_file()]
        if missing:
            raise NodeError(
                f"{federation} is no provisioned federation: {folder} lacks {', '.join(missing)}; give --dir the "
                "folder that `fedbus provision federation.yaml --dir DIR` wrote"
            )
        return cls(folder)

    @property
    def port(self) -> int | None:
        """Where the kits expect the broker; None when the folder does not say."""
        found = LISTENER.search(self._read("rabbitmq.conf"))
        return int(found[1]) if found else None

    @property
    def ports(self) -> tuple[int, ...]:
        """Where the kits expect each node of the broker, node 1 first; none when the folder does not say."""
        found = PLACES.search(self._read("rabbitmq.conf"))
        own = (self.port,) if self.port is not None else ()
        return tuple(port for _, port in places_of(found[1], 5671)) if found else own

    def config_files(self, port: int) -> dict[str, str]:
        """Name and text of the node's configuration files."""
        files = {name: self._read(name) for name in CONFIGURATION}
        conf = LISTENER.sub("", files["rabbitmq.conf"])
        written_for = DEFINITIONS.search(conf)
        if written_for is None:
            raise NodeError(f"{self.folder}/rabbitmq.conf loads no definitions: `fedbus provision` writes it again")
        own = f"listeners.ssl.1 = 127.0.0.1:{port}\nlog.console = false\nlog.file.level = info\n"
        files["rabbitmq.conf"] = f"{conf}\n{own}"
        moved = {name: text.replace(f"{written_for[1]}/", f"{self.folder}/") for name, text in files.items()}
        return moved | {"env.conf": ""}

    def answers(self, port: int) -> bool:
        """Whether the broker at 127.0.0.1:port shakes hands with the certificate of this folder.

        That a node reports itself started does not say that it has a TLS listener.
        """
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        context.check_hostname = False  # it is asked by its address, its name may lead to another machine
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as raw:
                raw.settimeout(HANDSHAKE_LIMIT_S)
                with context.wrap_socket(raw):
                    return True
        except OSError:
            return False

    def logins(self) -> tuple[str, ...]:
        """Names of the users in the definitions."""
        return tuple(sorted(str(user["name"]) for user in self._definitions()["users"]))

    def definitions(self, vhosts: Sequence[str]) -> dict[str, Any]:
        """The definitions for other virtual hosts, each with all that the federation's own has."""
        whole = self._definitions()
        return {
            kind: _for_vhosts(kind, entries, vhosts) if isinstance(entries, list) else entries
            for kind, entries in whole.items()
        }

    def _definitions(self) -> dict[str, Any]:
        path = self.folder / "definitions.json"
        try:
            if path.stat().st_size > MAX_DEFINITIONS_BYTES:
                raise ValueError(f"more than {MAX_DEFINITIONS_BYTES:,} bytes")
            content: dict[str, Any] = json.loads(path.read_text())
            content["users"]
        except OSError as exc:
            raise NodeError(f"{path} cannot be read: {exc.strerror}; run as its owner") from exc
        except (ValueError, KeyError, TypeError) as exc:
            raise NodeError(f"{path} holds no definitions ({exc}): `fedbus provision` writes it again") from exc
        return content

    def _read(self, name: str) -> str:
        try:
            return (self.folder / name).read_text()
        except (OSError, UnicodeDecodeError) as exc:
            raise NodeError(f"{self.folder / name} cannot be read ({exc}): `fedbus provision` writes it again") from exc


def _for_vhosts(kind: str, entries: Sequence[dict[str, Any]], vhosts: Sequence[str]) -> list[dict[str, Any]]:
    if kind == "vhosts":
        return [{"name": vhost} for vhost in vhosts]
    of_vhost = [entry for entry in entries if entry.get("vhost") == VHOST]
    shared = [entry for entry in entries if "vhost" not in entry]
    return [*shared, *(entry | {"vhost": vhost} for vhost in vhosts for entry in of_vhost)]
