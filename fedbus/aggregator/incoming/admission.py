"""What may come on the updates queue of a job: chunks and manifests of updates, from the login that they name.

Only what one message says by itself is checked here; how much of an update came before is `uploads`' business.
"""

from __future__ import annotations

from collections.abc import Callable

from fedbus.aggregator.incoming.uploads import MAX_FRAMES
from fedbus.bus.envelope import Envelope
from fedbus.bus.post import Post, check_key
from fedbus.bus.topology import UPDATES, update_key
from fedbus.core.protocol import wire
from fedbus.core.protocol.messages import Chunk, UpdateId, UpdateKind, UpdateManifest
from fedbus.errors import DecodeError, ProtocolError

FRAME_SLACK_BYTES = 1 << 16
# Only that of initial params brings a layout. What a manifest says is kept, told in events and named in refusals.
MAX_MANIFEST_BYTES = 1 << 16
MAX_INITIAL_MANIFEST_BYTES = 1 << 20
"""A layout takes about 80 bytes for each tensor."""
CHUNK_TYPE = wire.NAMES[Chunk]


def admitted(
    envelope: Envelope, *, post: Post, job: str, chunk_bytes: int, takes_part: Callable[[str], bool]
) -> Chunk | UpdateManifest:
    """Read a message of the queue of `job`, of a site that takes part in it.

    Raises ProtocolError, with what was expected and what came.
    """
    sender = envelope.user_id or ""
    if sender and not takes_part(sender):  # before its bytes are looked at
        raise ProtocolError(f"site {sender} takes no part in job {job}: it sends nothing before it has accepted")
    message = post.from_envelope(envelope, over=UPDATES)
    match message:
        case Chunk():
            _check_chunk(message, chunk_bytes + FRAME_SLACK_BYTES)
        case UpdateManifest():
            _check_manifest(message, len(envelope.body))
        case _:
            raise ProtocolError(f"message {type(message).__name__} does not belong on the updates queue")
    update_id = update_id_of(message)
    try:
        site = UpdateId.parse(update_id).site
    except ValueError as exc:
        raise DecodeError(str(exc)) from exc
    if message.job != job or site != envelope.user_id:
        raise ProtocolError(
            f"update {update_id} of job {message.job} came from login {envelope.user_id!r} on the queue of {job}:"
            " site, login and job must agree"
        )
    check_key(envelope, update_key(job, site))
    return message


def longest_message(type_name: str, *, chunk_bytes: int) -> int:
    """The longest body of a message of this type that is taken; one that is longer is refused without being kept."""
    return chunk_bytes + FRAME_SLACK_BYTES if type_name == CHUNK_TYPE else MAX_INITIAL_MANIFEST_BYTES


def update_id_of(message: Chunk | UpdateManifest) -> str:
    """The update that a message is part of."""
    return message.transfer if isinstance(message, Chunk) else message.update_id


def _check_chunk(chunk: Chunk, most_bytes: int) -> None:
    if chunk.part != "update" or chunk.count > MAX_FRAMES or len(chunk.body) > most_bytes:
        raise ProtocolError(
            f"chunk of part {chunk.part!r}, count {chunk.count}, {len(chunk.body)} bytes: expected an update of at most"
            f" {MAX_FRAMES} chunks of {most_bytes} bytes"
        )


def _check_manifest(manifest: UpdateManifest, size_bytes: int) -> None:
    if not 0 < manifest.frames <= MAX_FRAMES:
        raise ProtocolError(f"update manifest with {manifest.frames} frames: expected 1 to {MAX_FRAMES} frames")
    if manifest.kind is UpdateKind.DELTA and size_bytes > MAX_MANIFEST_BYTES:
        raise ProtocolError(f"update manifest of {size_bytes} bytes: expected at most {MAX_MANIFEST_BYTES}")
