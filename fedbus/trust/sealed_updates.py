"""Sealed updates: one fresh key for each, sealed to the aggregator and signed by the site; it travels with every chunk.

    about      domain, federation, job, site, update id, base version, layout digest
    headers    base, layout: what `about` says beside the chunk's own headers;  seal: the key, sealed under `about`
               suite, certificate, signature: of the site, over `about` and `seal`
    chunk      AES-256-GCM in STREAM form under that key, associated data = `about`, index, count

Whoever does not know the key forges no chunk, so that no hash of the body is signed. The key is drawn once for an
update and kept with it: however often it is sent, a chunk is the same bytes; sealed anew to another key of the
aggregator, it still is.
"""

from __future__ import annotations

import base64
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from fedbus.errors import SealError
from fedbus.trust.identity import Identity, Verifier
from fedbus.trust.sealing import ChunkSeal, PublicKey, SealKeys, framed, unbase64
from fedbus.trust.signing import check_headers, signature_headers
from fedbus.trust.subjects import Role

MOST_OPENED = 256
MOST_BASE64 = 4000
_MOST_LAYOUT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """Which update it is."""

    federation: str
    job: str
    site: str
    update_id: str
    base_version: int
    layout_digest: str

    @property
    def framed(self) -> bytes:
        # the base of first params is -1
        base = str(self.base_version)
        parts = self.federation, self.job, self.site, self.update_id, base, self.layout_digest
        return framed("fedbus/update/1", *parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateSeal:
    """Seals the chunks of one update; `headers` go with each of them."""

    headers: Mapping[str, str | int]
    chunks: ChunkSeal = field(repr=False)


def sealed_by(identity: Identity, about: About, key: bytes, *, to: PublicKey) -> UpdateSeal:
    """Seal an update with the key that is kept with it, to a key of the aggregator."""
    said = about.framed
    sealed = to.seal(key, said)
    signature = identity.sign(_statement(said, sealed))
    headers: dict[str, str | int] = {
        "base": about.base_version,
        "layout": about.layout_digest,
        "seal": base64.b64encode(sealed).decode(),
    }
    return UpdateSeal(headers=headers | signature_headers(identity.certificate, signature), chunks=ChunkSeal(key, said))


def _statement(about: bytes, sealed: bytes) -> bytes:
    return framed("fedbus/update-key/1", about, sealed)


class UpdateOpener:
    """Opens chunks of updates. The keys of the last MOST_OPENED updates are at hand, each was checked once."""

    def __init__(self, federation: str, keys: SealKeys, verifier: Verifier) -> None:
        self._federation = federation
        self._keys = keys
        self._verifier = verifier
        self._opened: OrderedDict[tuple[str | int, ...], ChunkSeal] = OrderedDict()

    def open(self, headers: Mapping[str, str | int], body: bytes, *, site: str) -> bytes:
        """A chunk as it was before, of an update that `site` has signed. Raises SealError, SignatureError."""
        index, count = (_number(headers, key) for key in ("index", "count"))
        return self._chunks(headers, site).open(body, index, count)

    def _chunks(self, headers: Mapping[str, str | int], site: str) -> ChunkSeal:
        known = site, *(headers.get(key, "") for key in _RECORD)
        chunks = self._opened.get(known)
        if chunks is None:
            chunks = self._opened[known] = self._record(headers, site)
            if len(self._opened) > MOST_OPENED:
                self._opened.popitem(last=False)
        self._opened.move_to_end(known)
        return chunks

    def _record(self, headers: Mapping[str, str | int], site: str) -> ChunkSeal:
        about = About(
            federation=self._federation,
            job=_text(headers, "job"),
            site=site,
            update_id=_text(headers, "transfer"),
            base_version=_number(headers, "base"),
            layout_digest=_text(headers, "layout", most=_MOST_LAYOUT),
        ).framed
        sealed = unbase64("header seal", _text(headers, "seal", most=MOST_BASE64))
        what = "the key of a chunk"
        check_headers(self._verifier, headers, _statement(about, sealed), what=what, role=Role.SITE, name=site)
        return ChunkSeal(self._keys.open(sealed, about), about)


_RECORD = ("job", "transfer", "base", "layout", "seal", "suite", "certificate", "signature")


def _text(headers: Mapping[str, str | int], key: str, *, most: int = 200) -> str:
    value = headers.get(key)
    if not isinstance(value, str) or len(value) > most:
        raise SealError(f"chunk: header {key} must be a text of at most {most} characters: expected a sealed update")
    return value


def _number(headers: Mapping[str, str | int], key: str) -> int:
    value = headers.get(key)
    if type(value) is not int:
        raise SealError(f"chunk: header {key} must be an integer, got {value!r:.20}: expected a sealed update")
    return value
