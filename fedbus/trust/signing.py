"""Signatures over messages: who said exactly this, to whom, when.

    statement   domain, suite, federation, exchange, routing key, type, message id, correlation id, at, SHA-256 of the
                body, all headers but those below and those of the broker; each with its length in front
    headers     suite (1: ECDSA P-256, SHA-256, with the key of the certificate), at (nanoseconds since the epoch by the
                signer's clock), certificate and signature (base64 of DER)

A signature says nothing of a message that comes a second time: what must be done once is also given to `Repeats`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import heapq
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache

from fedbus.errors import ClockError, RepeatedError, SignatureError, TrustError
from fedbus.trust.certificates import fingerprint, public_key, read_certificate
from fedbus.trust.identity import Identity, Verifier
from fedbus.trust.sealing import framed
from fedbus.trust.subjects import Role, Subject

ECDSA_P256_SHA256 = 1
HEADERS = ("suite", "at", "certificate", "signature")
_OF_KEY = ("suite", "certificate", "signature")
_UNSIGNED = frozenset({*HEADERS, "traceparent"})
_OF_THE_BROKER = "x-"
_AT = re.compile(r"0|[1-9][0-9]{0,18}")
MOST_BASE64 = 6000
NS = 10**9

CLOCKS = timedelta(minutes=15)
"""So far the clocks of two participants may be apart."""
MOST_REMEMBERED = 1024
"""Of each signer; what it signed before the oldest of them is too old."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Carrier:
    """What is signed of a message; `headers` may hold those of the signature, which are left out of the statement."""

    exchange: str
    routing_key: str
    type: str
    message_id: str
    correlation_id: str = ""
    headers: Mapping[str, str | int]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """Who signed, with which key, and when by its own clock."""

    subject: Subject
    fingerprint: str
    at_ns: int


def statement(carrier: Carrier, *, federation: str, at_ns: int) -> bytes:
    """The exact bytes that are signed."""
    return framed(
        "fedbus/message/1",
        ECDSA_P256_SHA256,
        federation,
        carrier.exchange,
        carrier.routing_key,
        carrier.type,
        carrier.message_id,
        carrier.correlation_id,
        at_ns,
        hashlib.sha256(carrier.body).digest(),
        _framed_headers(carrier.headers),
    )


def _framed_headers(headers: Mapping[str, str | int]) -> bytes:
    said = sorted((k, v) for k, v in headers.items() if k not in _UNSIGNED and is_said(k))
    return framed("headers", *(part for key, value in said for part in (key, type(value).__name__, str(value))))


def is_said(header: str) -> bool:
    """Whether its sender has said it; the others are the broker's."""
    return not header.startswith(_OF_THE_BROKER)


def sign(identity: Identity, carrier: Carrier, *, at_ns: int) -> dict[str, str | int]:
    """The headers that make a message signed."""
    signature = identity.sign(statement(carrier, federation=identity.federation, at_ns=at_ns))
    return {"at": str(at_ns)} | signature_headers(identity.certificate, signature)


def signature_headers(certificate: bytes, signature: bytes) -> dict[str, str | int]:
    """Certificate and signature (DER) as they stand in headers."""
    return {
        "suite": ECDSA_P256_SHA256,
        "certificate": base64.b64encode(certificate).decode(),
        "signature": base64.b64encode(signature).decode(),
    }


def check(verifier: Verifier, carrier: Carrier, *, federation: str, role: Role, name: str = "") -> Signed:
    """Who signed a message. SignatureError unless that is somebody of this role, and `name` when it is given."""
    what = f"message {carrier.type!r:.60}"
    _check_signed(what, carrier.headers, HEADERS, role)
    at_ns = _at(what, carrier.headers["at"])
    said = statement(carrier, federation=federation, at_ns=at_ns)
    subject = check_headers(verifier, carrier.headers, said, what=what, role=role, name=name)
    certificate = _bytes(what, "certificate", carrier.headers["certificate"])
    return Signed(subject=subject, fingerprint=_fingerprint(certificate), at_ns=at_ns)


@lru_cache(maxsize=256)
def _fingerprint(certificate: bytes) -> str:
    return fingerprint(public_key(read_certificate(certificate)))


def check_headers(
    verifier: Verifier, headers: Mapping[str, str | int], said: bytes, *, what: str, role: Role, name: str = ""
) -> Subject:
    """Who signed a statement, by the headers of a signature. SignatureError as `check`."""
    _check_signed(what, headers, _OF_KEY, role)
    if type(headers["suite"]) is not int or headers["suite"] != ECDSA_P256_SHA256:
        raise SignatureError(f"{what}: signature suite {headers['suite']!r:.20} is unknown, expected 1")
    certificate, signature = (_bytes(what, key, headers[key]) for key in ("certificate", "signature"))
    try:
        subject = verifier.check(certificate, said, signature, role=role)
    except TrustError as exc:
        raise SignatureError(f"{what}: {exc}") from exc
    if name and subject.name != name:
        raise SignatureError(f"{what} is signed by {subject}, expected {role} {name}")
    return subject


def _check_signed(what: str, headers: Mapping[str, str | int], keys: Sequence[str], role: Role) -> None:
    missing = [key for key in keys if key not in headers]
    if missing:
        raise SignatureError(
            f"{what} is not signed (no header {missing[0]}): expected a signature of the role {role}, headers "
            f"{', '.join(keys)}"
        )


def _at(what: str, at: str | int) -> int:
    if not isinstance(at, str) or not _AT.fullmatch(at):
        raise SignatureError(f"{what}: header at must be a time in nanoseconds since the epoch, as text")
    return int(at)


def _bytes(what: str, key: str, value: str | int) -> bytes:
    if not isinstance(value, str) or len(value) > MOST_BASE64:
        raise SignatureError(f"{what}: header {key} must be base64 of at most {MOST_BASE64} characters")
    try:
        return base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error):
        raise SignatureError(f"{what}: header {key} is no base64") from None


def check_age(signed: Signed, *, oldest: timedelta, now_ns: int) -> None:
    """SignatureError for what was signed longer ago, by the signer's clock."""
    ago_s = (now_ns - signed.at_ns) // NS
    if ago_s > oldest.total_seconds():
        raise SignatureError(
            f"a message of {signed.subject} was signed {ago_s} s ago, by its clock: expected at most "
            f"{oldest.total_seconds():.0f} s ago; send it anew, or is a clock wrong?"
        )


class Repeats:
    """Refuses what is too old, from the future, or was there before; its memory is bounded.

    lifetime: how long a message may be under way. Times are nanoseconds since the epoch. Of every signer
    MOST_REMEMBERED messages are known; what is signed before the oldest of them is taken for a repeat.
    """

    def __init__(self, *, lifetime: timedelta) -> None:
        self._oldest_ns = int((lifetime + CLOCKS).total_seconds() * NS)
        self._newest_ns = int(CLOCKS.total_seconds() * NS)
        self._signers: dict[str, _Remembered] = {}

    def check(self, signed: Signed, message_id: str, *, now_ns: int) -> None:
        """RepeatedError unless this is the first time; it is remembered. ClockError for another time than now."""
        who, off_ns = signed.subject, now_ns - signed.at_ns
        if not -self._newest_ns <= off_ns <= self._oldest_ns:
            when = "ago" if off_ns > 0 else "in the future"
            raise ClockError(
                f"a message of {who} was signed {abs(off_ns) // NS} s {when}, by its clock: expected at most "
                f"{self._oldest_ns // NS} s ago and {self._newest_ns // NS} s in the future; is a clock wrong?",
                ahead_s=-off_ns / NS,
            )
        remembered = self._signers.setdefault(who.name, _Remembered())
        if not remembered.is_new(signed.at_ns, message_id, oldest_ns=now_ns - self._oldest_ns):
            raise RepeatedError(f"message {message_id[:40]!r} of {who} came before: a repeat changes nothing")


class _Remembered:
    """The newest messages of one signer: a heap of (at, hash of the id), and the same as a set."""

    __slots__ = ("_after_ns", "_heap", "_known")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int]] = []
        self._known: set[tuple[int, int]] = set()
        self._after_ns = -1

    def is_new(self, at_ns: int, message_id: str, *, oldest_ns: int) -> bool:
        entry = (
            at_ns,
            int.from_bytes(hashlib.blake2b(message_id.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big"),
        )
        if at_ns <= self._after_ns or entry in self._known:
            return False
        heapq.heappush(self._heap, entry)
        self._known.add(entry)
        while len(self._heap) > MOST_REMEMBERED or self._heap[0][0] < oldest_ns:
            oldest = heapq.heappop(self._heap)
            self._known.discard(oldest)
            self._after_ns = max(self._after_ns, oldest[0])
        return True
