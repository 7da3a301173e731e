"""Epochs of a job's model log: one key for the time between two changes of who may read it.

    epoch key   32 random bytes; the aggregator's ledger has them, and the sites that may read the epoch
    part key    HKDF-SHA256 of the epoch key; info = job, epoch, version, part; salt = 16 bytes drawn anew each time
                that the part is written, so that no key seals two texts, whatever is published again after a crash
    record      a chunk, or a manifest, sealed under the part key in STREAM form, see `sealing`; epoch and salt are in
                its headers
    keys        what a site is given: epochs and their keys, sealed to its seal key; info = federation, job, site

An epoch's key does not say who sealed: every site of the job has it. Manifests are signed, and name the hash of what
the chunks hold.
"""

from __future__ import annotations

import base64
import os
import struct
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fedbus.errors import SealError
from fedbus.trust.sealing import KEY_BYTES, ChunkSeal, PublicKey, SealKeys, derived_key, framed, new_key, unbase64

EPOCH, SALT, VERSION = "epoch", "salt", "version"
"""Headers of a sealed record."""
CHUNK = "chunk"
"""The type of all records but manifests."""
MANIFEST = "manifest"
"""What the manifest of a version is among its parts."""
SALT_BYTES = 16
MOST_EPOCHS = 256
"""So many are given to a site at once, the newest."""
MOST_NUMBER = 2**31 - 1
REMEMBERED_PARTS = 8

_ROW = struct.Struct(f">I{KEY_BYTES}s")


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochKey:
    """The key of one epoch of a job; numbers go up from 0."""

    number: int
    key: bytes = field(repr=False)

    @classmethod
    def make(cls, number: int) -> EpochKey:
        """Draw one."""
        return cls(number=number, key=new_key())


class PartSeal:
    """Seals one part of a version, once: it is made anew for each time that a part is written."""

    def __init__(self, epoch: EpochKey, *, job: str, version: int, part: str) -> None:
        salt = os.urandom(SALT_BYTES)
        self._seal = _chunk_seal(epoch.key, salt, job=job, epoch=epoch.number, version=version, part=part)
        self.headers: Mapping[str, str | int] = {
            EPOCH: epoch.number,
            SALT: base64.b64encode(salt).decode(),
            VERSION: version,
        }
        """What a reader needs beside the key."""

    def seal(self, body: bytes, index: int = 0, count: int = 1) -> bytes:
        """Record `index` of `count`."""
        return self._seal.seal(body, index, count)


class LogKeys:
    """The epochs of one job that a site may read, and opens what was sealed in them."""

    def __init__(self, job: str, keys: Iterable[EpochKey] = ()) -> None:
        self._job = job
        self._keys = {key.number: key for key in keys}
        self._parts: OrderedDict[tuple[int, str, int, str], ChunkSeal] = OrderedDict()

    @property
    def keys(self) -> tuple[EpochKey, ...]:
        """By number."""
        return tuple(self._keys[number] for number in sorted(self._keys))

    @property
    def newest(self) -> int:
        """The last epoch whose key is here; -1: there is none."""
        return max(self._keys, default=-1)

    def __contains__(self, epoch: int) -> bool:
        return epoch in self._keys

    def add(self, keys: Iterable[EpochKey]) -> bool:
        """Take keys; whether one of them is new. A number never gets another key."""
        new = {key.number: key for key in keys if key.number not in self._keys}
        self._keys |= new
        return bool(new)

    def opened(self, type: str, headers: Mapping[str, str | int], body: bytes) -> bytes:
        """The body of a record of the log, by its headers. Raises SealError as `open`, and when it is not sealed."""
        version = version_of(headers)
        if type != CHUNK:
            return self.open(headers, body, part=MANIFEST, version=version)
        part, index, count = headers.get("part"), headers.get("index"), headers.get("count")
        if headers.get("transfer") != str(version) or not isinstance(part, str) or part == MANIFEST:
            raise SealError(f"expected a chunk of version {version}, got one of {headers.get('transfer')!r:.40}")
        if not isinstance(index, int) or not isinstance(count, int):
            raise SealError(f"a chunk of version {version} must say its index and count")
        return self.open(headers, body, part=part, version=version, index=index, count=count)

    def open(
        self, headers: Mapping[str, object], body: bytes, *, part: str, version: int, index: int = 0, count: int = 1
    ) -> bytes:
        """What was sealed. SealError when it is not this record, or its epoch's key is not here."""
        epoch, salt = epoch_of(headers), headers.get(SALT)
        if not isinstance(salt, str) or len(salt) > 2 * SALT_BYTES:
            raise SealError(
                f"record of epoch {epoch} of job {self._job}: expected {SALT_BYTES} bytes of salt as base64"
            )
        if epoch not in self._keys:
            held = f"{min(self._keys)} to {self.newest}" if self._keys else "none"
            raise SealError(f"no key of epoch {epoch} of job {self._job} is here; held: {held}")
        return self._part(epoch, salt, version, part).open(body, index, count)

    def _part(self, epoch: int, salt: str, version: int, part: str) -> ChunkSeal:
        place = epoch, salt, version, part
        if place in self._parts:
            self._parts.move_to_end(place)
        else:
            raw = unbase64("salt", salt)
            self._parts[place] = _chunk_seal(
                self._keys[epoch].key, raw, job=self._job, epoch=epoch, version=version, part=part
            )
            if len(self._parts) > REMEMBERED_PARTS:
                self._parts.popitem(last=False)
        return self._parts[place]


def is_sealed(headers: Mapping[str, object]) -> bool:
    """Whether a record of a model log says that it is sealed."""
    return EPOCH in headers


def epoch_of(headers: Mapping[str, object]) -> int:
    """The epoch that a sealed record names. Raises SealError."""
    return _number(headers, EPOCH)


def version_of(headers: Mapping[str, object]) -> int:
    """The version that a sealed record belongs to, as its header says before it is opened. Raises SealError."""
    return _number(headers, VERSION)


def _number(headers: Mapping[str, object], name: str) -> int:
    number = headers.get(name)
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= MOST_NUMBER:
        raise SealError(
            f"a record of a job's model log that is not sealed came: header {name} must be a number, got {number!r:.20}"
        )
    return number


def _chunk_seal(key: bytes, salt: bytes, *, job: str, epoch: int, version: int, part: str) -> ChunkSeal:
    about = framed("fedbus/log/1", job, epoch, version, part)
    return ChunkSeal(derived_key(key, about, salt=salt), about)


# ------------------------------------------------------------------ from the aggregator to a site


def seal_keys(keys: Iterable[EpochKey], to: PublicKey, *, federation: str, job: str, site: str) -> str:
    """The newest MOST_EPOCHS of some keys, sealed to a site, as text. Raises SealError."""
    newest = sorted(keys, key=lambda key: key.number)[-MOST_EPOCHS:]
    rows = b"".join(_ROW.pack(key.number, key.key) for key in newest)
    return base64.b64encode(to.seal(rows, _info(federation, job, site))).decode()


def open_keys(text: str, ours: SealKeys, *, federation: str, job: str, site: str) -> tuple[EpochKey, ...]:
    """What `seal_keys` sealed to this site. Raises SealError."""
    rows = ours.open(unbase64("epoch keys", text), _info(federation, job, site))
    if len(rows) % _ROW.size or len(rows) > MOST_EPOCHS * _ROW.size:
        raise SealError(f"epoch keys of job {job}: {len(rows)} bytes are no list of at most {MOST_EPOCHS} keys")
    return tuple(EpochKey(number=number, key=key) for number, key in _ROW.iter_unpack(rows))


def _info(federation: str, job: str, site: str) -> bytes:
    return framed("fedbus/epoch-keys/1", federation, job, site)
