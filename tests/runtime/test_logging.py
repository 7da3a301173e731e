"""Log lines: JSON for programs, plain for people, the standard library's records in the same form."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

PROGRAM = """
import logging, sys, structlog
from fedbus.runtime.logging import configure_logging
configure_logging(sys.argv[1], sys.argv[2])
log = structlog.get_logger()
log.debug("detail")
log.info("update-folded", job="heart", weight=0.5)
log.warning("careful")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("broken")
    logging.getLogger("asyncio").exception("task %s", "died")
logging.getLogger("somewhere").warning("not shown")
logging.getLogger("aiormq").error("not shown")
"""


def lines(level: str, style: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, level, style], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


@pytest.mark.parametrize("style", ["json", "auto"])
def test_json_is_one_object_a_line_also_where_stderr_is_no_terminal(style: str) -> None:
    found = [json.loads(line) for line in lines("info", style)]
    assert [(line["event"], line["level"]) for line in found] == [
        ("update-folded", "info"),
        ("careful", "warning"),
        ("broken", "error"),
        ("task died", "error"),
    ]
    assert found[0].items() >= {"job": "heart", "weight": 0.5}.items()
    assert found[0]["timestamp"].endswith("Z")


def test_errors_bring_their_trace_and_foreign_records_their_logger() -> None:
    *_, own, foreign = [json.loads(line) for line in lines("info", "json")]
    assert "ZeroDivisionError" in own["exception"]
    assert "ZeroDivisionError" in foreign["exception"]
    assert foreign["logger"] == "asyncio"


@pytest.mark.parametrize(("level", "first"), [("debug", "detail"), ("info", "update-folded"), ("error", "broken")])
def test_the_level_is_the_least_that_is_said(level: str, first: str) -> None:
    assert json.loads(lines(level, "json")[0])["event"] == first


def test_console_is_for_people_and_not_coloured_in_a_file() -> None:
    text = "\n".join(lines("info", "console"))
    assert "update-folded" in text
    assert "update-folded heart weight=0.5" in text
    assert "ZeroDivisionError" in text
    assert "task died" in text
    assert "\x1b" not in text
    assert "not shown" not in text


def test_for_people_a_line_begins_with_a_time_that_has_its_zone_and_comes_to_its_words_at_once() -> None:
    found = lines("info", "console")
    assert re.fullmatch(r"\d\d:\d\d:\d\d[+-]\d{4} update-folded heart weight=0.5", found[0])
    assert re.fullmatch(r"\d\d:\d\d:\d\d[+-]\d{4} warning careful", found[1])


WORDY_PROGRAM = """
import structlog
from fedbus.runtime.logging import configure_logging
configure_logging()
log = structlog.get_logger()
log.info("update-folded", job="heart-ad54203f", text="beta: staleness 0, weight 21.9", weight=21.9)
log.info("site-joined", job="-", text="beta joined")
log.warning("broker refused", detail="the broker at hub:5672 refused user 'mercy': " + "wrong user or password " * 6)
log.info("rule-chosen", job="heart-ad54203f", text="x" * 100)
"""


def test_on_a_terminal_of_80_columns_no_line_is_longer() -> None:
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    subprocess.run([sys.executable, "-c", WORDY_PROGRAM], stderr=child, check=True, timeout=60)
    os.close(child)
    shown = re.sub(r"\x1b\[\d*m", "", os.read(parent, 100_000).decode()).splitlines()
    os.close(parent)
    said = [line.rstrip()[len("16:07:22+0000 ") :] if line[0].isdigit() else line for line in shown]
    assert said[:4] == [
        "update-folded heart-ad54203f beta: staleness 0, weight 21.9",
        "site-joined beta joined",
        "warning broker refused",
        "    the broker at hub:5672 refused user 'mercy': wrong user or password wrong",
    ]
    assert max(map(len, shown)) <= 80
    assert "".join(line.strip() for line in said[-2:]) == "x" * 100


# ------------------------------------------------------------------ what others say, and what nobody may see

HOSTILE_PROGRAM = """
import logging, sys, structlog
from fedbus.runtime.logging import configure_logging
configure_logging("info", sys.argv[1])
log = structlog.get_logger()
hostile = "\\x1b[2J\\r\\n\\u202eall is well"

def connect(url):
    raise ValueError(hostile)

log.warning(hostile, site=hostile, text_of=hostile, listed=[hostile], facts={hostile: hostile}, number=0.5)
log.info("said", text=hostile, **{"job": hostile})
logging.getLogger("asyncio").error("%s", hostile)
try:
    connect("amqp://mercy:open-sesame@hub/")
except ValueError:
    log.exception("broken", text=hostile)
    logging.getLogger("asyncio").exception("task died")
"""


@pytest.mark.parametrize("style", ["console", "json"])
def test_no_log_line_moves_the_cursor_or_shows_a_local_variable(style: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOSTILE_PROGRAM, style], capture_output=True, text=True, check=True, timeout=30
    )
    shown = done.stderr.split("\n")
    assert all(line.isprintable() for line in shown)
    assert not any(line.startswith("all is well") for line in shown)
    assert "ValueError" in done.stderr
    # the program's own source line has it; no value of a variable may
    assert done.stderr.count("open-sesame") == 0
    if style == "json":
        assert json.loads(shown[0])["site"] == "\x1b[2J\r\n\u202eall is well"
