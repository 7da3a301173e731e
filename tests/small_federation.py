"""A federation for tests: one CA, and kits as their participants have them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from fedbus.trust.authority import Authority
from fedbus.trust.certificates import PrivateKey, certificate_pem, key_pem, new_key
from fedbus.trust.subjects import Role, Subject


def subject(name: str = "site-a", role: Role = Role.SITE, *, number: int = 0, federation: str = "hearts") -> Subject:
    return Subject(federation=federation, name=name, role=role, number=number if role is Role.SITE else None)


def write_kit(
    folder: Path, authority: Authority, whom: Subject, *, at: datetime | None = None, hosts: Sequence[str] = ()
) -> PrivateKey:
    """Write a kit with a new key and a certificate of this moment; returns the key."""
    key = new_key()
    folder.mkdir(parents=True)
    issued = authority.issue(key.public_key(), whom, at=at or datetime.now(UTC), hosts=hosts)
    (folder / "cert.pem").write_bytes(certificate_pem(issued))
    (folder / "ca.pem").write_bytes(certificate_pem(authority.certificate))
    (folder / "key.pem").touch(0o600)
    (folder / "key.pem").write_bytes(key_pem(key))
    return key
