"""Log lines: for people on a terminal, JSON otherwise; one canonical line per update and per commit.

    16:07:22+0000 update-folded heart-ad54203f beta: staleness 0, weight 21.9
    16:07:22+0000 warning broker refused
        the broker at hub:5672 refused user 'mercy': wrong user or password; ...

Words that do not fit beside their time stand below it, as wide as the terminal; in a file they stay on their line.
A traceback shows no local variables, for one of them may be a password; and a terminal gets nothing that moves its
cursor, whoever said it.
"""

from __future__ import annotations

import logging
import os
import sys
import textwrap
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
        structlog.dev.ConsoleRenderer(columns=_columns(colors=sys.stderr.isatty()), exception_formatter=_traceback)
        if console
        else structlog.processors.JSONRenderer(sort_keys=True)
    )
    shaping: list[structlog.typing.Processor] = (
        [_brief, _printable, _fitted] if console else [structlog.processors.format_exc_info]
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


HEAD = ("timestamp", "level", "event", "job")
INDENT = "    "


def _columns(*, colors: bool) -> list[structlog.dev.Column]:
    """The head of a line and its words bare, all else as key=value."""
    bold, faint, red, yellow, reset = ("\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[33m", "\x1b[0m") if colors else ("",) * 5

    styles = {"debug": faint, "warning": yellow}

    def bare(style: str) -> structlog.dev.KeyValueColumnFormatter:
        return structlog.dev.KeyValueColumnFormatter(None, style, reset, str)

    def level(key: str, value: object) -> str:
        return "" if value == "info" else f"{styles.get(str(value), red)}{value}{reset}"

    heads: dict[str, structlog.dev.ColumnFormatter] = {
        "timestamp": bare(faint),
        "level": level,
        "event": bare(bold),
        "job": bare(""),
        "text": bare(""),
    }
    rest = structlog.dev.KeyValueColumnFormatter(faint, "", reset, _repr_if_spaced)
    return [*(structlog.dev.Column(key, form) for key, form in heads.items()), structlog.dev.Column("", rest)]


def _repr_if_spaced(value: object) -> str:
    """A value of key=value: in quotes when one could not see where it ends."""
    text = str(value)
    return repr(text) if not text or " " in text or "=" in text else text


def _brief(_: object, __: str, record: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Of a line that says in words what its numbers mean, the words; JSON has the numbers too."""
    words = record.get("text", record.get("detail"))
    if words is None:
        return record
    kept = (*HEAD, "error", "exc_info", "logger")
    return {**{key: record[key] for key in kept if record.get(key, "-") != "-"}, "text": words}


def _fitted(_: object, __: str, record: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Words that are too long for what is left of the line below it."""
    try:
        width = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        return record
    head = [str(record[key]) for key in HEAD if record.get(key, "info") != "info"]
    if "text" not in record or len(" ".join([*head, record["text"]])) <= width:
        return record
    lines = textwrap.wrap(record["text"], max(20, width - len(INDENT)), break_on_hyphens=False)
    return {**record, "text": "".join(f"\n{INDENT}{line}" for line in lines)}


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
