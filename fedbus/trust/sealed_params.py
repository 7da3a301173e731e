"""Params that a submitter fetches, sealed to it: one key a fetch, drawn by the aggregator.

offer    the key, sealed to the seal key that the signed question brought; info = federation, login, fetch
part     sealed as a chunk under a key derived from it with a salt of its own (header salt), in its place in the file
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from typing import Self

from fedbus.errors import SealError
from fedbus.trust.sealing import ChunkSeal, PublicKey, SealKeys, derived_key, framed, new_key, unbase64

SALT = "salt"
SALT_BYTES = 16


class SealedParts:
    """Seals and opens the parts of one fetch: `size_bytes` in parts of `part_bytes`."""

    def __init__(self, key: bytes, info: bytes, *, size_bytes: int, part_bytes: int) -> None:
        self._key = key
        self._info = info
        self._part_bytes = max(1, part_bytes)
        self._count = max(1, -(-size_bytes // self._part_bytes))

    @classmethod
    def begun(
        cls, to: PublicKey, *, federation: str, login: str, of: str, size_bytes: int, part_bytes: int
    ) -> tuple[Self, str]:
        """A new key for a fetch, and the key sealed to who fetches, as text. Raises SealError."""
        key, info = new_key(), _info(federation, login, of)
        text = base64.b64encode(to.seal(key, info)).decode()
        return cls(key, info, size_bytes=size_bytes, part_bytes=part_bytes), text

    @classmethod
    def offered(
        cls, text: str, ours: SealKeys, *, federation: str, login: str, of: str, size_bytes: int, part_bytes: int
    ) -> Self:
        """What `begun` has sealed to us. Raises SealError."""
        info = _info(federation, login, of)
        key = ours.open(unbase64("key of the params", text), info)
        return cls(key, info, size_bytes=size_bytes, part_bytes=part_bytes)

    def seal(self, part: bytes, offset: int) -> tuple[dict[str, str | int], bytes]:
        """The headers and the body of the part at a byte of the file."""
        salt = os.urandom(SALT_BYTES)
        body = self._at(offset, salt).seal(part, offset // self._part_bytes, self._count)
        return {SALT: base64.b64encode(salt).decode()}, body

    def open(self, headers: Mapping[str, object], body: bytes, offset: int) -> bytes:
        """Raises SealError when it is not this part of this fetch."""
        salt = headers.get(SALT)
        if not isinstance(salt, str) or len(salt) > 2 * SALT_BYTES:
            raise SealError(f"the part at byte {offset} is not sealed: expected a header {SALT}")
        return self._at(offset, unbase64(SALT, salt)).open(body, offset // self._part_bytes, self._count)

    def _at(self, offset: int, salt: bytes) -> ChunkSeal:
        about = framed("fedbus/params/1", self._info, offset)
        return ChunkSeal(derived_key(self._key, about, salt=salt), about)


def _info(federation: str, login: str, of: str) -> bytes:
    return framed("fedbus/params-key/1", federation, login, of)
