"""A provisioned federation for tests, and what its participants do at their side."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from fedbus.provision.federation import FederationFolder
from fedbus.provision.federation_file import FederationFile
from fedbus.provision.participant import request, unpack
from fedbus.trust.identity import Identity
from fedbus.trust.subjects import Role


def federation_file(*sites: str, port: int = 5671, host: str = "localhost") -> FederationFile:
    text = f"federation: hearts\nbroker: {{host: {host}, port: {port}}}\nsites: [{', '.join(sites)}]\n"
    return FederationFile.parse(text, where="federation.yaml")


def enrol(
    folder: FederationFolder, kit: Path, name: str, role: Role = Role.SITE, *, ago: timedelta = timedelta()
) -> Identity:
    """Request, sign and unpack, as the two sides do."""
    asked = request(kit, name, role)
    folder.sign(
        asked.file.read_bytes(), confirmed=lambda _, found: found == asked.fingerprint, now=datetime.now(UTC) - ago
    )
    group = "sites" if role is Role.SITE else "submitters"
    return unpack(folder.base / group / f"{name}.zip", kit)


def contents(base: Path) -> dict[str, tuple[bytes, int, int]]:
    """Every file: its bytes, mode and time of change."""
    return {
        str(path.relative_to(base)): (path.read_bytes(), path.stat().st_mode, path.stat().st_mtime_ns)
        for path in base.rglob("*")
        if path.is_file()
    }
