"""A kit, before anything connects: its files, who may read them, certificate, key and CA, the revocation list.

Everything that makes a broker say no, or say nothing, can be seen here first: a wrong file costs a minute then, and not
a week of "it registers and never connects".
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from fedbus.doctor.finding import Area, Finding, Reporter, Status
from fedbus.errors import TrustError
from fedbus.trust.certificates import (
    MAX_PEM_BYTES,
    check_use,
    fingerprint,
    issuer_of,
    public_key,
    read_certificates,
    read_key,
    subject_of,
)
from fedbus.trust.identity import AUTHORITIES, CERTIFICATE, KEY, MAX_LIST_BYTES, REVOKED, read_lists
from fedbus.trust.sealing import SealKeys
from fedbus.trust.subjects import Role, Subject

FILES = Reporter(Area.CONFIG, "kit files")
MODES = Reporter(Area.CONFIG, "key files")
CERTIFICATES = Reporter(Area.CONFIG, "certificate")
LIST = Reporter(Area.CONFIG, "revocation list")
SEAL = Reporter(Area.CONFIG, "seal key")
UNPACK = "unpack the kit again, as the user who runs the daemon"
RENEW = "ask the federation for a renewed certificate (`fedbus provision renew`)"
OTHERS = 0o077


def examine_kit(kit: Path, *, role: Role | None, name: str | None, now: datetime) -> Iterator[Finding]:
    """All findings of a kit. `role` and `name` are what the settings say; None where they say nothing."""
    missing = [file for file in (CERTIFICATE, KEY, AUTHORITIES) if not (kit / file).is_file()]
    if missing:
        there = "this folder" if kit.is_dir() else "there is no such folder; a kit"
        yield FILES.fail(f"{kit}: {there} lacks {', '.join(missing)}", f"give --kit the folder of the kit, or {UNPACK}")
        return
    yield FILES.ok(f"{kit} has {CERTIFICATE}, {KEY} and {AUTHORITIES}")
    yield key_modes([kit / KEY])
    try:
        yield from _certificate(kit, role=role, name=name, now=now)
    except TrustError as exc:
        yield CERTIFICATES.fail(str(exc), UNPACK)


def key_modes(files: list[Path]) -> Finding:
    """Whether somebody else on this machine may read a key; files that are not there are none of it."""
    there = [file for file in files if file.exists()]
    for file in there:
        found = file.stat()
        mode = stat.S_IMODE(found.st_mode)
        if mode & OTHERS:
            return MODES.fail(f"{file} can be read or changed by others (mode {mode:04o})", f"chmod 600 {file}")
        if found.st_uid != os.geteuid() and os.geteuid() != 0:
            return MODES.fail(f"{file} belongs to another user", f"run this as the owner of {file.parent}")
        if not os.access(file, os.R_OK):
            return MODES.fail(f"{file} cannot be read by this user", f"chmod 600 {file}")
    if not there:
        return MODES.skipped("no key lies here yet")
    return MODES.ok(f"only their owner reads {', '.join(file.name for file in there)}")


def seal_key(path: Path) -> Finding:
    """The key that others seal to, which a daemon makes at its first start: readable by its owner alone, and whole."""
    if not path.exists():
        return SEAL.skipped(f"none yet: the daemon makes {path} when it starts")
    try:
        SealKeys.load(path)
    except (TrustError, OSError) as exc:
        return SEAL.fail(str(exc), "with another key what was sealed to this one cannot be opened: do not delete it")
    return SEAL.ok(f"{path} is whole, and only its owner reads it")


# ------------------------------------------------------------------ the certificate


def _certificate(kit: Path, *, role: Role | None, name: str | None, now: datetime) -> Iterator[Finding]:
    certificate = read_certificates(_bytes(kit / CERTIFICATE), what=CERTIFICATE)[0]
    authorities = read_certificates(_bytes(kit / AUTHORITIES), what=AUTHORITIES)
    key = read_key(_bytes(kit / KEY), what=KEY).public_key()
    issuer = issuer_of(certificate, authorities)
    if issuer is None:
        yield CERTIFICATES.fail(
            f"{CERTIFICATE} was issued by {_words(certificate.issuer)}, which is not the CA in {AUTHORITIES} "
            f"({' and '.join(_words(each.subject) for each in authorities)})",
            f"the two files are of different kits: {UNPACK}",
        )
        return
    subject = subject_of(certificate)
    check_use(certificate, subject.role)
    wrong = [*_does_not_fit(kit, certificate, key), *_is_not(kit, subject, role, name)]
    dates = certificate_dates(certificate.not_valid_before_utc, certificate.not_valid_after_utc, now)
    if wrong or dates.status is not Status.OK:
        yield from wrong
        yield from [dates] * (dates.status is not Status.OK)
    else:
        yield CERTIFICATES.ok(f"{subject}, key {fingerprint(key)}, {dates.text}")
    yield from _authorities(authorities, now)
    yield from _revocation(kit, certificate, issuer, now)


def _does_not_fit(kit: Path, certificate: Any, key: Any) -> Iterator[Finding]:
    if public_key(certificate) != key:
        yield CERTIFICATES.fail(
            f"{KEY} does not fit {CERTIFICATE}: it was made for key {fingerprint(public_key(certificate))}, "
            f"this is key {fingerprint(key)}",
            f"put back the key that the request was made with, or make a new request in place of {kit}",
        )


def _is_not(kit: Path, subject: Subject, role: Role | None, name: str | None) -> Iterator[Finding]:
    if role not in (None, subject.role):
        yield CERTIFICATES.fail(f"this is the certificate of {subject}, and this is to be the {role}", UNPACK)
    elif name not in (None, subject.name) and subject.role is Role.SITE:
        yield CERTIFICATES.fail(
            f"the certificate names {subject.name}, the settings name {name}: the broker goes by the certificate",
            f'write site_name = "{subject.name}" in {kit / "site.toml"}, or take {name}\'s kit',
        )


def certificate_dates(start: datetime, end: datetime, now: datetime) -> Finding:
    """Whether a certificate is good now, and for how long."""
    if now < start:
        return CERTIFICATES.fail(
            f"the certificate is not valid before {_day(start)}, and it is {_day(now)} on this machine",
            "set this machine's clock (timedatectl set-ntp true); if it is right, the federation's is not",
        )
    if now > end:
        return CERTIFICATES.fail(f"the certificate expired on {_day(end)}, {span(now - end)} ago", RENEW)
    if end - now < (end - start) / 3:
        return CERTIFICATES.warn(f"the certificate ends on {_day(end)}, in {span(end - now)}", RENEW)
    return CERTIFICATES.ok(f"good for {span(end - now)} more")


def _authorities(authorities: list[Any], now: datetime) -> Iterator[Finding]:
    for authority in authorities:
        if not authority.not_valid_before_utc <= now <= authority.not_valid_after_utc:
            yield CERTIFICATES.fail(
                f"the CA {_words(authority.subject)} is good from {_day(authority.not_valid_before_utc)} to "
                f"{_day(authority.not_valid_after_utc)}, and it is {_day(now)} on this machine",
                "set this machine's clock; else the federation needs a new CA (`fedbus provision rotate-ca`)",
            )


# ------------------------------------------------------------------ the revocation list


def _revocation(kit: Path, certificate: Any, issuer: Any, now: datetime) -> Iterator[Finding]:
    path = kit / REVOKED
    if not path.exists():
        yield LIST.skipped(f"this kit has no {REVOKED}: the broker has the list")
        return
    lists = [each for each in read_lists(_bytes(path, MAX_LIST_BYTES), path) if each.issuer == issuer.subject]
    if not lists:
        yield LIST.fail(
            f"{REVOKED} has no list of the CA that issued {CERTIFICATE}", "copy it again from the federation"
        )
        return
    newest = max(lists, key=lambda each: each.last_update_utc)
    if any(entry.serial_number == certificate.serial_number for entry in newest):
        yield LIST.fail("this certificate is revoked", "ask the federation why; a new one needs a new request")
        return
    yield list_age(newest.last_update_utc, newest.next_update_utc, now)


def list_age(start: datetime, end: datetime | None, now: datetime) -> Finding:
    """Whether a revocation list still counts: past its end the broker lets nobody in."""
    fix = "have the federation write a new one: any `fedbus provision` command does (`fedbus provision renew`)"
    if now < start:
        return LIST.fail(
            f"the list was made on {_day(start)}, and it is {_day(now)} on this machine", "set this machine's clock"
        )
    if end is None:
        return LIST.warn("the list does not say how long it is good", fix)
    if now > end:
        return LIST.fail(f"the list ended on {_day(end)}, {span(now - end)} ago: the broker lets nobody in", fix)
    if now > start + (end - start) / 2:
        return LIST.warn(f"the list ends in {span(end - now)}; then the broker lets nobody in", fix)
    return LIST.ok(f"{span(now - start)} old, good for {span(end - now)} more")


# ------------------------------------------------------------------ words


def span(duration: timedelta) -> str:
    """A duration in its largest unit."""
    seconds = int(abs(duration).total_seconds())
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _day(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _words(name: Any) -> str:
    """A distinguished name for people, bounded: it came from a file."""
    return repr(str(name.rfc4514_string())[:80])


def _bytes(path: Path, limit: int = MAX_PEM_BYTES) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as exc:
        raise TrustError(f"{path} cannot be read: {exc.strerror}") from exc
