"""What the site daemon and its trainer process say to each other, and how it stands on their socket.

What lives here: the messages, their bytes, reading and writing them on asyncio streams (daemon) and on a blocking
socket (trainer). What may not: torch, for the daemon imports this; tensors, which pass as files of frames.

    trainer → daemon   Hello                                              once, before it is asked anything
    daemon → trainer   Examine, Open, MakeInitial, Load, Train, Score, Save, Close    in order, each answered once
                       Cancel                                             at once: every Train sent before it ends
    trainer → daemon   Open: Opened | MakeInitial: Made | Load: Loaded or LoadFailed | Train: Trained or Cancelled
                       Score: Scored | Examine: Examined | Save: Saved | any of these: Failed
                       Progress while a Train runs
                       Close and Cancel have no reply; a trainer that was told Close ends, as it does at end of stream

    one message = length u32 little-endian, then msgpack [type name, {field: value}]
"""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import msgpack
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.frames import DEFAULT_RATIO
from fedbus.core.protocol.messages.base import UNSAID
from fedbus.core.protocol.spread import Spreads
from fedbus.core.protocol.statistics import ClassLoss, Plan, Statistics
from fedbus.errors import DecodeError

MAX_MESSAGE_BYTES = 16 << 20  # a layout of 200,000 tensors fits; anything longer is garbage
LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """Load the task and the site's data; asked once more, load both anew and forget what was loaded.

    `local` is the job's `local` section; empty in a job that trains nothing. `up` is the code of its updates, `ratio`
    the share of elements that topk keeps. `travel`, `keep` and `frozen` are the job's lists of tensors; what stays at
    the site lies in the file `kept`, and begins as that of another job, in the file `kept_before`, where there is one.
    `words`: texts of the job's spec, which may stand in names of metrics. `fewest_cases`: of fewer test
    cases no interval leaves. `ranks`: devices of further processes that train together with this one.
    """

    job: str
    task: str
    task_config: Mapping[str, Any]
    seed: int
    site: str
    data: str
    local: Mapping[str, Any]
    chunk_bytes: int
    up: str = "fp32"
    ratio: float = DEFAULT_RATIO
    device: str = "auto"
    threads: int = 1
    slowdown: float = 1.0
    step_delay_s: float = 0.0
    travel: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    kept: str = ""
    kept_before: str = ""
    words: tuple[str, ...] = ()
    fewest_cases: int = 5
    ranks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeInitial:
    """Write the task's own fresh params, exact, as frames to `path`; zeros when only their layout is asked for."""

    path: str
    layout_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Bring the replica to `version`: a snapshot and the deltas after it, or only the deltas it lacks.

    `digest` is what the replica must then have. `layout` is set whenever `snapshot` is.
    """

    version: int
    digest: str
    deltas: tuple[str, ...] = ()
    snapshot: str | None = None
    layout: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Train:
    """Train from the loaded version under `seed` and write the encoded delta as frames to `path`.

    `steps`: make so many instead of the job's `local.steps`.

    With error feedback (`residual_after` is set) the sum of the files `residual_add`, less those of
    `residual_subtract`, is added to the delta; it is written to `residual_before` unless it is zero, what the update
    leaves out to `residual_after`.

    local: where the trained params themselves are written, exact, as frames; empty: nowhere.
    """

    path: str
    seed: int
    steps: int | None = None
    residual_add: tuple[str, ...] = ()
    residual_subtract: tuple[str, ...] = ()
    residual_before: str = ""
    residual_after: str = ""
    local: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Score `version`, which must be the loaded one; the other fields as in `messages.ScoreRequest`."""

    version: int
    intervals: bool = False
    model: int = -1
    against: int = -1
    losses: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Examine:
    """Compute statistics of the site's data. Needs no Open: a task may refuse to open what the statistics show."""

    job: str
    task: str
    task_config: Mapping[str, Any]
    seed: int
    site: str
    data: str
    plan: Plan
    threads: int = 1
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Save:
    """Write `version`, which must be the loaded one, to `path` as a state dict that torch loads, and read it back.

    like: the file that it is to replace; names and shapes must be those of that file. "" for none.
    """

    path: str
    version: int
    like: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """End every Train sent before this, between two of its steps; its delta is dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """End the process when what was asked before is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The trainer has started, as process `pid`."""

    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """The task is ready. `numel` counts the elements of its params."""

    device: str
    layout_digest: str
    numel: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """The initial params are written; `frame_sizes` in bytes, in the order of the file; `digest` is the layout's."""

    layout: Mapping[str, Any]
    frame_sizes: tuple[int, ...]
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The replica holds `version`, digest verified."""

    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadFailed:
    """The replica is empty now and needs a snapshot. `reason` may leave the site, `detail` is for its log."""

    version: int
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A Train is at `step` of `steps`; steps is 0 when the budget is in seconds.

    memory_used_bytes, memory_bytes: of its GPU, by whomever it is used; 0 without one.
    """

    step: int
    steps: int
    loss: float | None = None
    memory_used_bytes: int = field(default=0, metadata=UNSAID)
    memory_bytes: int = field(default=0, metadata=UNSAID)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """The delta from `base_version` is written; `frame_sizes` in bytes, in the order of the file.

    notes: for the site's own log only, what was left out of the metrics and why. local_sizes: of the frames of the
    trained params, where they were written. encode_s: how long the update took to make after training, in seconds.
    """

    base_version: int
    frame_sizes: tuple[int, ...]
    effort: Effort
    notes: tuple[str, ...] = ()
    local_sizes: tuple[int, ...] = ()
    encode_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """A Train ended by Cancel; nothing was written."""

    base_version: int
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Metrics of the loaded version on the site's test data; `notes` as in Trained.

    not_finite: names of metrics that are NaN or infinite and not in `metrics`. spreads, differences, losses: as in
    `messages.ScoreAnswer`.
    """

    version: int
    metrics: Mapping[str, float]
    num_examples: int
    not_finite: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    spreads: Spreads = field(default_factory=dict)
    differences: Spreads = field(default_factory=dict)
    losses: Mapping[str, ClassLoss] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """Statistics as they may leave the site; None: the task has none to give. `notes` as in Trained."""

    statistics: Statistics | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """The file is written and was compared with the params."""

    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The command was not done. `fatal`: asking again cannot help before a person has changed something.

    `error` may leave the site (see `sayable`); `traceback` holds the whole text and is for the site's log, where
    `reference` finds it.
    """

    error: str
    traceback: str
    fatal: bool
    reference: str = ""


Command = Examine | Open | MakeInitial | Load | Train | Score | Save | Cancel | Close
Reply = Opened | Made | Loaded | LoadFailed | Progress | Trained | Cancelled | Scored | Examined | Saved | Failed
Message = Command | Reply | Hello

TYPES: dict[str, type[Message]] = {
    "open": Open,
    "examine": Examine,
    "make-initial": MakeInitial,
    "load": Load,
    "train": Train,
    "score": Score,
    "save": Save,
    "cancel": Cancel,
    "close": Close,
    "hello": Hello,
    "opened": Opened,
    "made": Made,
    "loaded": Loaded,
    "load-failed": LoadFailed,
    "progress": Progress,
    "trained": Trained,
    "cancelled": Cancelled,
    "scored": Scored,
    "examined": Examined,
    "saved": Saved,
    "failed": Failed,
}
NAMES = {cls: name for name, cls in TYPES.items()}


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(with_config(ConfigDict(extra="forbid"))(TYPES[name]))


def pack(message: Message) -> bytes:
    """Turn a message into its bytes, length first; ValueError when it is longer than MAX_MESSAGE_BYTES."""
    values = ((f, getattr(message, f.name)) for f in dataclasses.fields(message))
    fields = {f.name: value for f, value in values if not (f.metadata == UNSAID and value == f.default)}
    body = msgpack.packb([NAMES[type(message)], fields], default=_plain)
    if len(body) > MAX_MESSAGE_BYTES:
        raise ValueError(f"message {NAMES[type(message)]} has {len(body)} bytes, at most {MAX_MESSAGE_BYTES} may pass")
    return LENGTH.pack(len(body)) + bytes(body)


def unpack(body: bytes) -> Message:
    """Turn the bytes after the length into a message.

    Raises DecodeError with what was expected and what came; never anything else, whatever the bytes.
    """
    try:
        content = msgpack.unpackb(body)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as exc:
        raise DecodeError(f"expected msgpack, got {len(body)} bytes that are none: {exc}") from exc
    match content:
        case [str() as name, dict() as fields] if name in TYPES:
            return _build(name, fields)
        case [str() as name, _]:
            raise DecodeError(f"expected a message type of {', '.join(TYPES)}; got {name[:40]!r}")
    raise DecodeError(f"expected [type, fields], got a {type(content).__name__}")


async def read_message(reader: asyncio.StreamReader) -> Message:
    """Read one message; EOFError when the stream ends, DecodeError when it holds garbage."""
    size = _checked_size(await reader.readexactly(LENGTH.size))
    return unpack(await reader.readexactly(size))


async def write_message(writer: asyncio.StreamWriter, message: Message) -> None:
    """Write one message and wait until the stream takes more; ConnectionError when the other end is gone."""
    writer.write(pack(message))
    await writer.drain()


def receive_message(sock: socket.socket) -> Message:
    """Read one message from a blocking socket; EOFError when it was closed, DecodeError when it holds garbage."""
    size = _checked_size(_receive_exactly(sock, LENGTH.size))
    return unpack(_receive_exactly(sock, size))


def send_message(sock: socket.socket, message: Message) -> None:
    """Write one message to a blocking socket; OSError when the other end is gone."""
    sock.sendall(pack(message))


def _build(name: str, fields: Mapping[Any, Any]) -> Message:
    try:
        message: Message = _adapter(name).validate_python(fields)
    except ValidationError as exc:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'fields'}: {e['msg']}" for e in exc.errors()[:5])
        raise DecodeError(f"message {name}: {problems}") from exc
    return message


def _plain(value: object) -> object:
    """Let msgpack write the read-only mappings of a job spec, an effort, and statistics."""
    if isinstance(value, Mapping):
        return dict(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    raise TypeError(f"a {type(value).__name__} does not pass between site daemon and trainer")


def _checked_size(prefix: bytes) -> int:
    size = int(LENGTH.unpack(prefix)[0])
    if size > MAX_MESSAGE_BYTES:
        raise DecodeError(f"expected a message of at most {MAX_MESSAGE_BYTES} bytes, got a length of {size}")
    return size


def _receive_exactly(sock: socket.socket, size: int) -> bytes:
    chunks = []
    while size:
        chunk = sock.recv(min(size, 1 << 20))
        if not chunk:
            raise EOFError(f"the stream ended {size} bytes before the end of a message")
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)
