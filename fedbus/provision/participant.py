"""The participant's side: a key that stays on its machine, a request for a certificate, the kit that comes back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fedbus.core.protocol.messages import check_name
from fedbus.errors import TrustError
from fedbus.provision.files import PRIVATE, present, put, put_once
from fedbus.provision.packing import unpacked
from fedbus.provision.texts import POLICY
from fedbus.store.files import drop_leftovers
from fedbus.trust.certificates import (
    check_dates,
    fingerprint,
    issuer_of,
    key_pem,
    new_key,
    public_key,
    read_certificates,
    read_key,
    read_request,
    request_pem,
    subject_of,
)
from fedbus.trust.identity import AUTHORITIES, CERTIFICATE, KEY, Identity, read_private_key
from fedbus.trust.subjects import Role

README = "README.md"
SETTINGS = tuple(f"{role}.toml" for role in (Role.SITE, Role.SUBMITTER, Role.AGGREGATOR))
KNOWN = frozenset({CERTIFICATE, AUTHORITIES, KEY, README, POLICY, *SETTINGS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request on its way: the one file to send, and what to read to its signer over the phone."""

    file: Path
    fingerprint: str


def request(kit: Path, name: str, role: Role) -> Request:
    """Make a key, 0600, and a request in a kit; a second time the same ones. TrustError, StoreError."""
    if role not in (Role.SITE, Role.SUBMITTER):
        raise TrustError(f"the {role}'s key is made by `fedbus provision`: requests are for sites and submitters")
    try:
        check_name(role, name)
    except ValueError as exc:
        raise TrustError(str(exc)) from exc
    drop_leftovers(kit)
    if not (kit / KEY).exists():
        put(kit / KEY, key_pem(new_key()), mode=PRIVATE)
    key = read_private_key(kit / KEY)
    path = kit / f"{name}.csr"
    if not _is_request(path, name, role, fingerprint(key.public_key())):
        put(path, request_pem(key, name=name, role=role))
    return Request(file=path, fingerprint=fingerprint(key.public_key()))


def _is_request(path: Path, name: str, role: Role, key_fingerprint: str) -> bool:
    try:
        found = read_request(present(path) or b"")
    except TrustError:
        return False
    return (found[0], found[1], fingerprint(found[2])) == (name, role, key_fingerprint)


def unpack(packed: Path, kit: Path) -> Identity:
    """Put a packed kit beside the key that it was made for; settings and policy that are there stay as they are.

    TrustError when it does not fit the key, or was changed on its way; then nothing is written.
    """
    content = unpacked(packed)
    if strange := sorted(set(content) - KNOWN):
        raise TrustError(f"{packed} has files that no kit has: {', '.join(strange)}")
    _check(content, packed, kit)
    drop_leftovers(kit)
    if KEY in content:
        put(kit / KEY, content[KEY], mode=PRIVATE)
    for name in (AUTHORITIES, CERTIFICATE, README):
        if name in content:
            put(kit / name, content[name])
    for name in sorted({POLICY, *SETTINGS} & set(content)):
        put_once(kit / name, content[name])
    return Identity.load(kit)


def _check(content: dict[str, bytes], packed: Path, kit: Path) -> None:
    if not {CERTIFICATE, AUTHORITIES} <= set(content):
        raise TrustError(f"{packed} lacks {CERTIFICATE} or {AUTHORITIES}: ask for it again")
    certificate = read_certificates(content[CERTIFICATE], what=f"{CERTIFICATE} in {packed}")[0]
    authorities = read_certificates(content[AUTHORITIES], what=f"{AUTHORITIES} in {packed}")
    if issuer_of(certificate, authorities) is None:
        raise TrustError(f"{CERTIFICATE} in {packed} is not of the CA beside it: ask for it again")
    there = read_private_key(kit / KEY) if (kit / KEY).exists() else None
    brought = read_key(content[KEY], what=f"{KEY} in {packed}") if KEY in content else None
    own = fingerprint(public_key(certificate))
    subject = subject_of(certificate)
    if there is None and brought is None:
        raise TrustError(
            f"{packed} is the kit of {subject} and {kit} has no {KEY}: unpack it where the request was made"
        )
    for key in (there, brought):
        if key is not None and fingerprint(key.public_key()) != own:
            raise TrustError(
                f"{packed} is for key {own} of {subject}, and the key in {kit} is {fingerprint(key.public_key())}: "
                "unpack it where the request was made"
            )
    check_dates(certificate, datetime.now(UTC))


def authority_fingerprints(kit: Path) -> list[str]:
    """The keys of the CAs that a kit believes."""
    pem = present(kit / AUTHORITIES) or b""
    return [fingerprint(public_key(each)) for each in read_certificates(pem, what=str(kit / AUTHORITIES))]
