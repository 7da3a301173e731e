"""What a broken or hostile site may send, drawn at random from a seed; `said` has what goes to `fedbus.sites`.

Every case says how it must end:

    dead         the message breaks the protocol: it lies in `fedbus.dead` with the reason
    refused      an update that came whole and cannot be folded: refused on record, its site gets a receipt
    unfinished   an update that was begun and never finished: dropped, refused on record, or still awaited
    decided      an update that is strange and well-formed: dead, or decided with a receipt, one way or the other
    taken        well-formed words: no end of their own, they must cost the others nothing; or returned by the broker
"""

from __future__ import annotations

import dataclasses
import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
import zstandard

from fedbus.bench.abuse.logins import Site
from fedbus.bench.abuse.said import said
from fedbus.bus.envelope import Envelope, Headers
from fedbus.core.protocol import messages as m
from fedbus.core.protocol import wire
from fedbus.core.protocol.effort import Effort, lifted
from fedbus.core.protocol.frames import HEADER_BYTES, Code, build_frame
from fedbus.core.protocol.layout import Layout
from fedbus.tensors import codec

BOMB_BYTES = 1 << 30
MOST_BODY_BYTES = 8 << 20
CHUNK_SLACK_BYTES = 1 << 16


class End(StrEnum):
    DEAD = "dead"
    REFUSED = "refused"
    UNFINISHED = "unfinished"
    DECIDED = "decided"
    TAKEN = "taken"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Messages of one abuse; `ident` is the message id of one that dies, the update id of the others."""

    what: str
    end: End
    ident: str
    envelopes: tuple[Envelope, ...]


class Abuser:
    """Draws cases for a running job; `site` is the login that publishes them, `other` one that it is not.

    `other_job` runs too, and the site takes no part in it.
    """

    def __init__(
        self, job: str, layout: Layout, *, site: Site, other: str, other_job: str, chunk_bytes: int, seed: int
    ) -> None:
        self._job = job
        self._other_job = other_job
        self._layout = layout
        self._site = site.name
        self._post = site.post
        self._other = other
        self._chunk_bytes = chunk_bytes
        self._random = rng = random.Random(seed)
        self._drawn = 0
        self._good = frames(layout, seed=seed)
        self._bombs = bombs(layout)
        self._table: list[tuple[str, End, Callable[[], tuple[Envelope, ...]]]] = [
            *((what, End.DEAD, self._dead(make)) for what, make in self._messages().items()),
            *((what, End.REFUSED, self._whole(make)) for what, make in self._bodies().items()),
            *((what, End.REFUSED, self._announced(keys)) for what, keys in self._manifests().items()),
            *((what, End.DECIDED, make) for what, make in self._strange().items()),
            (
                "an update for a job that it takes no part in",
                End.TAKEN,
                self._for_the_other_job,
            ),
            *(
                (what, End.TAKEN, make)
                for what, make in said(job, other_job, site=site.name, session=site.session_id, rng=rng).items()
            ),
            ("a chunk and nothing more", End.UNFINISHED, lambda: (self._chunk(),)),
            ("a manifest and nothing more", End.UNFINISHED, lambda: (self._manifest(),)),
        ]

    @property
    def kinds(self) -> list[str]:
        return [what for what, _, _ in self._table]

    def draw(self) -> Case:
        """The next case: every kind in turn first, then at random."""
        drawn, self._drawn = self._drawn, self._drawn + 1
        what, end, make = self._table[drawn] if drawn < len(self._table) else self._random.choice(self._table)
        envelopes = make()
        return Case(what=what, end=end, ident=f"abuse-{drawn}" if end is End.DEAD else self._id, envelopes=envelopes)

    # -------------------------------------------------------------- parts

    @property
    def _id(self) -> str:
        """Id of the update that the case drawn last is about."""
        return f"{self._site}:0badc0de:{self._drawn}"

    def _chunk(self, body: bytes | None = None, **keys: Any) -> Envelope:
        whole: dict[str, Any] = {"job": self._job, "transfer": self._id, "part": "update", "index": 0, "count": 1}
        body = self._good[0] if body is None else body
        return self._post.from_trainer(m.Chunk(**{**whole, "body": body, **keys}), site=self._site)

    def _manifest(self, **keys: Any) -> Envelope:
        return self._post.from_trainer(self._said(**keys), site=self._site)

    def _said(self, **keys: Any) -> m.UpdateManifest:
        return manifest_of(keys.pop("job", self._job), self._id, self._layout, self._good, **keys)

    def _for_the_other_job(self) -> tuple[Envelope, ...]:
        """The same update, of the job that the site takes no part in; aiormq tells what is returned by message ids."""
        both = self._chunk(job=self._other_job), self._manifest(job=self._other_job)
        return tuple(dataclasses.replace(it, message_id=f"{it.message_id}/{self._other_job}") for it in both)

    def _raw(self, type_name: str, body: bytes, headers: Headers) -> Envelope:
        return dataclasses.replace(self._manifest(), type=type_name, body=body, headers=headers)

    def _json(self, **keys: Any) -> Envelope:
        """A manifest that no fedbus would write."""
        said = dataclasses.asdict(self._said())
        for key, value in keys.items():
            (said["effort"] if key in said["effort"] else said)[key] = value
        return self._raw("update", json.dumps(said).encode(), {"schema": wire.SCHEMA})

    def _dead(self, make: Callable[[], Envelope]) -> Callable[[], tuple[Envelope, ...]]:
        return lambda: (dataclasses.replace(make(), message_id=f"abuse-{self._drawn - 1}"),)

    def _whole(self, make: Callable[[], bytes]) -> Callable[[], tuple[Envelope, ...]]:
        return lambda: (self._chunk(make()), self._manifest())

    def _announced(self, keys: dict[str, Any]) -> Callable[[], tuple[Envelope, ...]]:
        return lambda: (self._chunk(), self._json(**keys))

    def _bytes(self, most: int = 2000) -> bytes:
        return self._random.randbytes(self._random.randrange(most))

    def _with_headers(self, **headers: Any) -> Envelope:
        chunk = self._chunk()
        kept = {key: value for key, value in {**chunk.headers, **headers}.items() if value is not None}
        return dataclasses.replace(chunk, headers=kept)

    # -------------------------------------------------------------- what dies

    def _messages(self) -> dict[str, Callable[[], Envelope]]:
        known = {"schema": wire.SCHEMA}
        return {
            "random bytes as a manifest": lambda: self._raw("update", self._bytes(), known),
            "random bytes of random type": lambda: self._raw(self._random.randbytes(4).hex(), self._bytes(), known),
            "no type": lambda: self._raw("", self._bytes(), known),
            "no headers": lambda: self._raw(self._random.choice(["chunk", "update"]), self._bytes(), {}),
            "chunk without headers": lambda: self._raw("chunk", self._bytes(), known),
            "future schema": lambda: self._with_headers(schema=self._random.randrange(2, 100)),
            "schema as text": lambda: self._with_headers(schema="1"),
            "index as text": lambda: self._with_headers(index="0"),
            "index out of range": lambda: self._chunk(index=self._random.randrange(1, 2**31)),
            "negative index": lambda: self._chunk(index=-1),
            "absurd count": lambda: self._chunk(count=2**40),
            "another part": lambda: self._chunk(part="snapshot"),
            "unknown job": lambda: self._with_headers(job="no-such-job"),
            "unknown job in a manifest": lambda: self._json(job="no-such-job"),
            "update of another site": lambda: self._with_headers(transfer=f"{self._other}:0badc0de:1"),
            "manifest of another site": lambda: self._json(update_id=f"{self._other}:0badc0de:1"),
            "no update id": lambda: self._with_headers(transfer=self._bytes(40).hex()),
            "a path as update id": lambda: self._with_headers(transfer="../../etc:0badc0de:1"),
            "another spelling of an id": lambda: self._with_headers(transfer=f"{self._site}:0badc0de:01"),
            "chunk that is too long": lambda: self._chunk(bytes(self._chunk_bytes + CHUNK_SLACK_BYTES + 1)),
            "2^60 frames": lambda: self._json(frames=2**60),
            "no frames": lambda: self._json(frames=0),
            "negative frames": lambda: self._json(frames=-1),
            "unknown kind": lambda: self._json(kind="gift"),
            "NaN in a manifest": lambda: self._json(seconds=float("nan")),
            "infinity in a manifest": lambda: self._json(metrics={"loss": float("inf")}),
            "a number of 5000 digits": lambda: self._raw("update", b'{"frames":%s}' % (b"9" * 5000), known),
            "deep nesting": lambda: self._raw("update", b"[" * 100_000, known),
            "a long manifest": lambda: self._json(layout_digest="1" * 70_000),
            "a list as text": lambda: self._json(kind=["delta"]),
            "a chunk of 8 MiB": lambda: self._chunk(bytes(MOST_BODY_BYTES)),
            "a manifest of 8 MiB": lambda: self._raw("update", bytes(MOST_BODY_BYTES), known),
            "a copy for another job": lambda: self._raw("gossip", b"", {**known, **self._copies("CC")}),
            "a hidden copy for another job": lambda: self._raw("gossip", b"", {**known, **self._copies("BCC")}),
            "another message": lambda: self._raw("join", b'{"site":"x"}', known),
        }

    def _copies(self, header: str) -> dict[str, Any]:
        """A header that lets the broker route a message by other keys, too."""
        return {header: [f"{self._other_job}.{self._site}", f"{self._job}.{self._other}"]}

    # -------------------------------------------------------------- what is decided, one way or the other

    def _strange(self) -> dict[str, Callable[[], tuple[Envelope, ...]]]:
        zeros = frames(self._layout, seed=0, every=0.0)[0]
        huge = frames(self._layout, seed=0, every=1e9)[0]
        return {
            "an update of zeros": lambda: (self._chunk(zeros), self._manifest()),
            "all elements 1e9, with 10^12 examples": lambda: (self._chunk(huge), self._manifest(num_examples=10**12)),
            "one update id in two jobs": lambda: (
                self._chunk(),
                self._manifest(),
                *self._for_the_other_job(),
            ),
        }

    # -------------------------------------------------------------- what is refused

    def _bodies(self) -> dict[str, Callable[[], bytes]]:
        good, layout = self._good[0], self._layout
        return {
            "random bytes as a frame": self._bytes,
            "an empty frame": lambda: b"",
            "a frame cut short": lambda: good[: self._random.randrange(len(good))],
            "a frame with bytes behind it": lambda: good + self._bytes() + b"!",
            "wrong checksum": lambda: flipped(good, self._random.randrange(HEADER_BYTES, len(good))),
            "a frame of other elements": lambda: frames(Layout(tensors=layout.tensors[:1]), seed=0)[0],
            "elements that do not exist": lambda: build_frame(Code.FP32, 2**60, 4, [b"x" * 32]),
            "a bomb that says how long it is": lambda: self._bombs[0],
            "a bomb that does not": lambda: self._bombs[1],
            "a bomb that lies about it": lambda: self._bombs[2],
            "NaN": lambda: frames(layout, seed=0, value=float("nan"))[0],
            "infinity": lambda: frames(layout, seed=0, value=float("-inf"))[0],
            "a huge norm": lambda: frames(layout, seed=0, value=1e30)[0],
        }

    def _manifests(self) -> dict[str, dict[str, Any]]:
        return {
            "negative num_examples": {"num_examples": -1},
            "no examples": {"num_examples": 0},
            "absurdly many examples": {"num_examples": 2**62},
            "a version of the future": {"base_version": 10**9},
            "a negative version": {"base_version": -1},
            "another layout": {"layout_digest": "0123456789abcdef"},
            "2^60 bytes": {"body_bytes": 2**60},
            "more frames than the model has": {"frames": 2**20},
            "initial params that nobody asked for": {"kind": m.UpdateKind.INITIAL},
        }


def frames(
    layout: Layout,
    *,
    seed: int,
    value: float | None = None,
    every: float | None = None,
    chunk_bytes: int = codec.DEFAULT_CHUNK_BYTES,
) -> list[bytes]:
    """An update of small random deltas, one of them `value` or all of them `every` when given."""
    delta = torch.randn(layout.numel, generator=torch.Generator().manual_seed(seed)) * 1e-3
    if value is not None:
        delta[-1] = value
    if every is not None:
        delta[:] = every
    return list(codec.encode(delta, layout, Code.FP32, seed=seed, chunk_bytes=chunk_bytes))


def manifest_of(job: str, update_id: str, layout: Layout, bodies: list[bytes], **keys: Any) -> m.UpdateManifest:
    """The manifest of an update that consists of these frames."""
    whole = {
        "job": job,
        "update_id": update_id,
        "kind": m.UpdateKind.DELTA,
        "base_version": 0,
        "num_examples": 10,
        "layout_digest": layout.digest,
        "frames": len(bodies),
        "body_bytes": sum(map(len, bodies)),
    }
    found = lifted({**whole, **keys})
    return m.UpdateManifest(**found | {"effort": Effort(**found["effort"])})


def flipped(frame: bytes, at: int) -> bytes:
    """The frame with one byte changed."""
    return frame[:at] + bytes([frame[at] ^ 0xFF]) + frame[at + 1 :]


def bombs(layout: Layout) -> tuple[bytes, bytes, bytes]:
    """Frames that are valid but for a plane which decompresses to BOMB_BYTES: announced, not announced, lied about."""
    said = zstandard.ZstdCompressor(level=3).compress(bytes(BOMB_BYTES))
    lies = bytearray(said)
    # magic 4, descriptor 1, window 1, then for this size four bytes that say the length of the content
    lies[6:10] = struct.pack("<I", 2 * layout.numel)
    squeeze = zstandard.ZstdCompressor(level=3, write_content_size=False).compressobj()
    unsaid = squeeze.compress(bytes(BOMB_BYTES)) + squeeze.flush()
    return (_around(said, layout), _around(unsaid, layout), _around(bytes(lies), layout))


def _around(plane: bytes, layout: Layout) -> bytes:
    """As the first of the three planes of fp32, which has two bytes for each element."""
    others = [bytes(layout.numel)] * 2
    table = struct.pack("<3I", len(plane), *map(len, others))
    return build_frame(Code.FP32, 0, layout.numel, [table, plane, *others])
