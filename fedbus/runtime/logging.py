"""Log lines: for people on a terminal, JSON otherwise; one canonical line per update and per commit.

A traceback shows no local variables, for one of them may be a password; and a terminal gets nothing that moves its
cursor, whoever said it.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Sequence
from typing import Any, Literal, TextIO

import structlog

from fedbus.runtime.printable import printable, printable_lines
from fedbus.runtime.streams import guard_stderr, lost_words


def configure_logging(level: str = "info", style: Literal["auto", "json", "console"] = "auto") -> None:
    """Send structlog and the standard library's log records to stderr; none of them ever fails, see `streams`."""
    file = guard_stderr()
    console = style == "console" or (style == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S%z" if console else "iso", utc=not console),
    ]
    last: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0, exception_formatter=_traceback)
        if console
        else structlog.processors.JSONRenderer(sort_keys=True)
    )
    shaping: list[structlog.typing.Processor] = (
        [_brief, _printable] if console else [structlog.processors.format_exc_info]
    )
    structlog.configure(
        processors=[*shared, *shaping, last],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    if file:
        file.words = _Lost([*shared, *shaping, last])
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[_named, *shaping, last])
    )
    logging.basicConfig(level=logging.ERROR, handlers=[handler])
    # aiormq reports each refused frame as a warning of its own; the bus says the same in our words
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
    logging.getLogger("aio_pika").setLevel(logging.CRITICAL)


class _Lost:
    """Log lines that could not be written, as one line that can."""

    def __init__(self, processors: Sequence[structlog.typing.Processor]) -> None:
        self._processors = processors

    def __call__(self, lines: int, why: str) -> str:
        record: Any = {"event": "log-lines-lost", "lines": lines, "text": lost_words(lines, why)}
        for processor in self._processors:
            record = processor(None, "warning", record)
        return str(record)


def _brief(_: object, __: str, record: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Of a line that says in words what its numbers mean, the words; JSON has the numbers too."""
    kept = ("timestamp", "level", "event", "job", "text", "error", "exc_info", "logger")
    return {key: record[key] for key in kept if key in record} if "text" in record else record


def _printable(_: object, __: str, record: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Everything but errors as text of one line; `_traceback` sees to those."""
    return {printable(key): _shown(key, value) for key, value in record.items()}


def _shown(key: str, value: Any) -> Any:
    match value:
        case _ if key in ("exc_info", "_record", "_from_structlog"):
            return value
        case str() if key == "exception":  # somebody has made text of it already
            return printable_lines(value)
        case bool() | int() | float() | None:
            return value
        case _:
            return printable(value)


def _traceback(out: TextIO, exc_info: structlog.typing.ExcInfo) -> None:
    out.write("\n" + printable_lines("".join(traceback.format_exception(*exc_info)).rstrip()))


def _named(_: object, __: str, record: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """A record of the standard library with its logger's name, without what structlog needed in between."""
    own = {key: value for key, value in record.items() if key not in ("_record", "_from_structlog")}
    return own | {"logger": record["_record"].name}
