"""Log lines: for people on a terminal, JSON otherwise; one canonical line per update and per commit."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog


def configure_logging(level: str = "info", style: Literal["auto", "json", "console"] = "auto") -> None:
    """Send structlog and the standard library's log records to stderr."""
    console = style == "console" or (style == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if console else "iso", utc=not console),
    ]
    last: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if console
        else structlog.processors.JSONRenderer(sort_keys=True)
    )
    shaping: list[structlog.typing.Processor] = [_brief] if console else [structlog.processors.format_exc_info]
    structlog.configure(
        processors=[*shared, *shaping, last],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[_named, *shaping, last])
    )
    logging.basicConfig(level=logging.ERROR, handlers=[handler])
    # aiormq reports each refused frame as a warning of its own; the bus says the same in our words
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
    logging.getLogger("aio_pika").setLevel(logging.CRITICAL)


def _brief(_: object, __: str, record: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Of a line that says in words what its numbers mean, the words; JSON has the numbers too."""
    kept = ("timestamp", "level", "event", "job", "text", "error", "exc_info", "logger")
    return {key: record[key] for key in kept if key in record} if "text" in record else record


def _named(_: object, __: str, record: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """A record of the standard library with its logger's name, without what structlog needed in between."""
    own = {key: value for key, value in record.items() if key not in ("_record", "_from_structlog")}
    return own | {"logger": record["_record"].name}
