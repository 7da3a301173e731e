"""What a schema cannot say, in Markdown; numbers and names in it are those of the code."""

from __future__ import annotations

from pathlib import Path
from string import Template

from fedbus.bus import topology
from fedbus.bus.post import MAX_SITE_MESSAGE_BYTES
from fedbus.core.protocol import frames, layout, wire
from fedbus.core.protocol.events import NOBODY
from fedbus.core.protocol.messages import NAME

FRAME_SLACK_BYTES = 1 << 16
BLOCK, DIGEST_TILE, MAX_TOPK = 4096, 1 << 15, 1 << 21
"""Of modules that a document must not import (torch, the aggregator): a test compares."""


def about() -> str:
    """The words of the whole document."""
    text = Path(__file__).with_name("about.md").read_text("utf-8")
    codes = ", ".join(f"{number} {code}" for code, number in frames.CODE_NUMBERS.items())
    return Template(text).substitute(
        JSON=wire.JSON,
        FRAME=wire.FRAME,
        SCHEMA=wire.SCHEMA,
        MAX_JSON_BYTES=f"{wire.MAX_JSON_BYTES:,}",
        MAX_SITE_MESSAGE_BYTES=f"{MAX_SITE_MESSAGE_BYTES:,}",
        MAX_MESSAGE_BYTES=f"{topology.MAX_MESSAGE_BYTES:,}",
        NAME=NAME.pattern,
        FRAME_SLACK_BYTES=f"{FRAME_SLACK_BYTES:,}",
        SMALL_NUMEL=f"{layout.SMALL_NUMEL:,}",
        DTYPES=", ".join(sorted(layout.DTYPES)),
        HEADER_BYTES=frames.HEADER_BYTES,
        MAGIC=frames.MAGIC.decode(),
        FRAME_SCHEMA=frames.SCHEMA,
        CODES=codes,
        MAX_COUNT=f"{frames.MAX_COUNT:,}",
        MAX_TOPK=f"{MAX_TOPK:,}",
        VALUE_FRAME=f"{layout.VALUE_FRAME:,}",
        BLOCK=f"{BLOCK:,}",
        TILE=f"{DIGEST_TILE:,}",
        NOBODY=NOBODY,
    )
