"""Sealing: what is encrypted to a key can be opened by the holder of that key alone.

    suite   key of a participant      a sealed text is longer by   RFC 9180 base mode, single shot, with
    1       X25519                    57 bytes                     HKDF-SHA256, AES-256-GCM
    2       ML-KEM-768 + X25519       1145 bytes                   the same; also against quantum computers

    sealed text   suite u8 || key id, 8 bytes || enc || ciphertext; `info` says what it is and is not in it
    chunk         AES-256-GCM under a key used for one transfer only, in STREAM form (Hoang et al. 2015):
                  nonce = 7 zero bytes || index u32 || last u8, associated data = what it is, index, count

Sealing does not say who sealed: anybody who knows a public key can. What must hold against forgers is signed as well.
All numbers are big-endian. SealError for whatever does not open; it never says more than what was expected.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedbus.errors import SealError, TrustError
from fedbus.trust.suites import MLKEM768_X25519, SUITES, X25519

NUMBERS = tuple(SUITES.values())
KEY_BYTES = 32
TAG_BYTES = 16
"""A sealed chunk is so many bytes longer."""
MOST_COUNT = 2**32 - 1

_AEAD = hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM
_HPKE = {
    X25519: hpke.Suite(hpke.KEM.X25519, *_AEAD),
    MLKEM768_X25519: hpke.Suite(hpke.KEM.MLKEM768_X25519, *_AEAD),
}
_PUBLIC_BYTES = {X25519: 32, MLKEM768_X25519: 1184 + 32}
_PRIVATE_BYTES = {X25519: 32, MLKEM768_X25519: 64 + 32}
_HEAD = struct.Struct(">B8s")
_NONCE = struct.Struct(">7xIB")


def framed(domain: str, *parts: str | bytes | int) -> bytes:
    """`domain` and each part with its length in front, so that "job-1", "2" never reads like "job-12", "".

    A number is 8 bytes, 0 to 2^64 - 1.
    """
    return b"".join(map(_framed, (domain, *parts)))


def _framed(part: str | bytes | int) -> bytes:
    match part:
        case str():
            part = part.encode("utf-8", "surrogatepass")
        case int():
            part = struct.pack(">Q", part)
    return struct.pack(">I", len(part)) + part


# ------------------------------------------------------------------ keys of a participant


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The public part of a seal key. Raises SealError when it is none."""

    suite: int
    public: bytes = field(repr=False)
    id: bytes = field(init=False)

    def __post_init__(self) -> None:
        expected = _PUBLIC_BYTES.get(self.suite)
        if expected is None:
            raise SealError(f"seal key of suite {self.suite!r}: this fedbus knows the suites {NUMBERS}")
        if len(self.public) != expected:
            raise SealError(f"seal key of suite {self.suite}: expected {expected} bytes, got {len(self.public)}")
        name = hashlib.sha256(framed("fedbus/seal-key/1", self.suite, self.public)).digest()[:8]
        object.__setattr__(self, "id", name)

    @property
    def text(self) -> str:
        """As it stands in a message."""
        return base64.b64encode(self.public).decode()

    @classmethod
    def parse(cls, suite: int, text: str) -> Self:
        """Read what stands in a message. Raises SealError."""
        if len(text) > 2 * max(_PUBLIC_BYTES.values()):
            raise SealError(f"seal key of suite {suite!r}: {len(text)} characters are no key")
        return cls(suite, unbase64("seal key", text))

    def seal(self, plaintext: bytes, info: bytes) -> bytes:
        """Seal to the holder of this key, with fresh randomness each time. `info` is needed to open it."""
        try:
            sealed = _HPKE[self.suite].encrypt(plaintext, self._loaded(), info)
        except ValueError as exc:  # a point of small order, an ML-KEM key that is not reduced
            raise SealError(f"seal key {self.id.hex()}: nothing can be sealed to it: {exc}") from exc
        return _HEAD.pack(self.suite, self.id) + sealed

    def _loaded(self) -> Any:
        ecdh = x25519.X25519PublicKey.from_public_bytes(self.public[-32:])
        if self.suite == X25519:
            return ecdh
        return hpke.MLKEM768X25519PublicKey(mlkem.MLKEM768PublicKey.from_public_bytes(self.public[:-32]), ecdh)


def announced(keys: Mapping[str, str], suite: int) -> PublicKey:
    """The key of a suite among those of a message, base64 by the suite's number. Raises SealError when it has none."""
    text = keys.get(str(suite))
    if text is None:
        offered = ", ".join(sorted(keys)[:8]) or "none"
        raise SealError(f"expected a seal key of suite {suite}, got keys of suites: {offered}")
    return PublicKey.parse(suite, text)


class PrivateKey:
    """A seal key with its private part, which is in no repr and no error."""

    def __init__(self, suite: int, private: bytes) -> None:
        if len(private) != _PRIVATE_BYTES.get(suite):
            raise SealError(f"private seal key of suite {suite!r}: {len(private)} bytes are none")
        self._private = private
        ecdh = x25519.X25519PrivateKey.from_private_bytes(private[-32:])
        public = ecdh.public_key().public_bytes_raw()
        self._loaded: Any = ecdh
        if suite == MLKEM768_X25519:
            kem = mlkem.MLKEM768PrivateKey.from_seed_bytes(private[:-32])
            public = kem.public_key().public_bytes_raw() + public
            self._loaded = hpke.MLKEM768X25519PrivateKey(kem, ecdh)
        self.public = PublicKey(suite, public)

    @classmethod
    def make(cls, suite: int) -> Self:
        """Draw one."""
        if suite not in NUMBERS:
            raise SealError(f"seal suite {suite!r}: this fedbus knows {NUMBERS}")
        return cls(suite, os.urandom(_PRIVATE_BYTES[suite]))

    def open(self, ciphertext: bytes, info: bytes) -> bytes | None:
        """None when it does not open."""
        try:
            return bytes(_HPKE[self.public.suite].decrypt(ciphertext, self._loaded, info))
        except (InvalidTag, ValueError):
            return None

    def to_record(self) -> dict[str, Any]:
        """What stands in the file."""
        return {"suite": self.public.suite, "private": base64.b64encode(self._private).decode()}


class SealKeys:
    """All seal keys of one participant, one of each suite, and any that it had before: it opens what waits for them."""

    def __init__(self, keys: Sequence[PrivateKey]) -> None:
        self._keys = {key.public.id: key for key in keys}
        self._newest = {key.public.suite: key.public for key in keys}

    @classmethod
    def make(cls) -> Self:
        """New ones, which are gone with the process."""
        return cls([PrivateKey.make(suite) for suite in NUMBERS])

    @classmethod
    def load_or_make(cls, path: Path) -> Self:
        """Those of a file, which only its owner can read; it is made when it is not there. Raises TrustError."""
        try:
            if path.exists():
                return cls.load(path)
            keys = cls.make()
            _write_private(path, json.dumps([key.to_record() for key in keys._keys.values()]).encode() + b"\n")
        except OSError as exc:
            raise TrustError(f"seal key {path} cannot be read or written: {exc.strerror or exc}") from exc
        return keys

    @classmethod
    def load(cls, path: Path) -> Self:
        """Those of a file. Raises TrustError for one that is damaged or that others may read, OSError."""
        mode = path.stat().st_mode & 0o777
        if mode & 0o077:
            raise TrustError(f"seal key {path} may be read by others (mode {mode:04o}): chmod 600 {path}")
        try:
            records = json.loads(path.read_bytes())
            keys = [PrivateKey(r["suite"], unbase64("private", r["private"])) for r in records]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, SealError):
            keys = []  # its content must not be told
        if not keys:
            raise TrustError(f"seal key {path} is damaged: put it back from a copy; deleted, a new one is made")
        return cls(keys)

    @property
    def public(self) -> Mapping[int, PublicKey]:
        """What others seal to, by suite."""
        return self._newest

    def texts(self, *suites: int) -> dict[str, str]:
        """The public keys of these suites, of all without any, as they stand in a message."""
        return {str(suite): self._newest[suite].text for suite in suites or self._newest}

    def open(self, sealed: bytes, info: bytes) -> bytes:
        """Open what was sealed to one of the keys. Raises SealError."""
        if len(sealed) <= _HEAD.size:
            raise SealError(f"expected a sealed text, got {len(sealed)} bytes")
        suite, key_id = _HEAD.unpack_from(sealed)
        key = self._keys.get(key_id)
        if key is None or key.public.suite != suite:
            raise SealError(f"sealed to key {key_id.hex()} of suite {suite}, which is not ours: ours are {self}")
        plaintext = key.open(sealed[_HEAD.size :], info)
        if plaintext is None:
            raise SealError(
                f"what was sealed to key {key_id.hex()} does not open: it was changed, or is for another use"
            )
        return plaintext

    def __str__(self) -> str:
        return ", ".join(f"{key_id.hex()} (suite {key.public.suite})" for key_id, key in self._keys.items())


def _write_private(path: Path, data: bytes) -> None:
    beside = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    beside.unlink(missing_ok=True)
    try:
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


# ------------------------------------------------------------------ keys that seal chunks


def new_key() -> bytes:
    """A key for one transfer."""
    return os.urandom(KEY_BYTES)


def derived_key(secret: bytes, info: bytes, *, salt: bytes) -> bytes:
    """HKDF-SHA256 (RFC 5869): the key of one part, from the secret of many."""
    return HKDF(hashes.SHA256(), KEY_BYTES, salt, info).derive(secret)


class ChunkSeal:
    """Seals and opens the chunks of one transfer under a key of its own; `about` says which transfer it is.

    One key must never seal two different texts at one index.
    """

    def __init__(self, key: bytes, about: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise SealError(f"expected a key of {KEY_BYTES} bytes, got {len(key)}")
        self._aead = AESGCM(key)
        self._about = about

    def seal(self, chunk: bytes, index: int, count: int) -> bytes:
        """Chunk `index` of `count`, TAG_BYTES longer. The same key and chunk give the same bytes."""
        return self._aead.encrypt(_nonce(index, count), chunk, self._associated(index, count))

    def open(self, sealed: bytes, index: int, count: int) -> bytes:
        """Raises SealError when it is not this chunk of this transfer."""
        try:
            return self._aead.decrypt(_nonce(index, count), sealed, self._associated(index, count))
        except (InvalidTag, ValueError):
            raise SealError(f"sealed chunk {index} of {count} does not open: it was changed, or is another") from None

    def _associated(self, index: int, count: int) -> bytes:
        return framed("fedbus/chunk/1", self._about, index, count)


def _nonce(index: int, count: int) -> bytes:
    if not 0 <= index < count <= MOST_COUNT:
        raise SealError(f"expected chunk 0 to {MOST_COUNT} of fewer than that, got index {index} of {count}")
    return _NONCE.pack(index, index == count - 1)


def unbase64(what: str, text: str) -> bytes:
    """Strict base64. Raises SealError."""
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise SealError(f"{what}: expected base64") from None
