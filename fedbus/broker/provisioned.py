"""The broker's folder of a provisioned federation, as a private node runs from it: on loopback, by certificate alone.

    folder/cert.pem, key.pem, ca.pem, crl/, definitions.json, rabbitmq.conf     made by `fedbus provision`

The node has its own rabbitmq.conf, because the one in the folder is for the machine where the broker will run: it
differs in the address to listen at and in nothing that lets anybody in.
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

from fedbus.broker import tls_config
from fedbus.broker.definitions import VHOST
from fedbus.errors import NodeError

FILES = ("cert.pem", "key.pem", "ca.pem", "definitions.json")
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
                f"{federation} is no provisioned federation: {folder} lacks {', '.join(missing)}; give --from the "
                "folder that `fedbus provision federation.yaml --to DIR` wrote"
            )
        return cls(folder)

    @property
    def port(self) -> int | None:
        """Where the kits expect the broker; None when the folder does not say."""
        found = re.search(r"^listeners\.ssl\.\w+\s*=\s*(?:\S*:)?(\d{1,5})\s*$", self._conf(), re.MULTILINE)
        return int(found[1]) if found else None

    def config_files(self, port: int) -> dict[str, str]:
        """Name and text of the node's configuration files."""
        folder = str(self.folder)
        try:
            advanced = tls_config.advanced_config(folder)
        except ValueError as exc:
            raise NodeError(f"{exc}: choose another folder with --to") from exc
        quiet = "log.console = false\nlog.file.level = info\n"
        return {
            "rabbitmq.conf": tls_config.rabbitmq_conf(folder, listen=[f"127.0.0.1:{port}"]) + quiet,
            "advanced.config": advanced,
            "enabled_plugins": tls_config.PLUGINS,
            "env.conf": "",
        }

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

    def _conf(self) -> str:
        try:
            return (self.folder / "rabbitmq.conf").read_text()
        except OSError:
            return ""


def _for_vhosts(kind: str, entries: Sequence[dict[str, Any]], vhosts: Sequence[str]) -> list[dict[str, Any]]:
    if kind == "vhosts":
        return [{"name": vhost} for vhost in vhosts]
    of_vhost = [entry for entry in entries if entry.get("vhost") == VHOST]
    shared = [entry for entry in entries if "vhost" not in entry]
    return [*shared, *(entry | {"vhost": vhost} for vhost in vhosts for entry in of_vhost)]
