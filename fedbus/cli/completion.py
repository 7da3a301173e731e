"""Names of jobs and sites for the shell's Tab: from a small file, which a process beside asks the aggregator for anew.

A shell that completes a line waits for what is printed, and shows all of it to its user. So nothing is printed but
names; and the wait is `WAIT_S` at most, after which the names are those of last time and the process beside goes on for
the next Tab. Commands that have asked anyway write the file too. It is `$FEDBUS_HOME/completion/<broker>.json`; what is
in it is read as any other input.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from fedbus.errors import FedbusError

WAIT_S = 0.7
FRESH_S = 5.0
"""Names that are younger are not asked for again."""
ASKED_S = 20.0
"""So long who was asked and has not answered is not asked again."""
ANSWER_WITHIN_S = 10.0
MOST_NAMES = 500
MOST_BYTES = 256 * 1024
NAME = re.compile(r"[a-z0-9-]{1,80}")
"""What every id of a job and every name of a site is; anything else would be a word to the shell, or several."""
STATE = re.compile(r"[a-z ]{1,40}")
ENDED = ("finished", "failed", "aborted")
JOBS, SITES = "jobs", "sites"

Named = tuple[str, str]
"""A name, and the state that is shown beside it."""


def jobs(context: typer.Context, incomplete: str) -> list[Named]:
    """All jobs, the newest first."""
    return _of_context(context, JOBS, incomplete)


def jobs_that_go_on(context: typer.Context, incomplete: str) -> list[Named]:
    """Jobs that have not ended."""
    return [one for one in jobs(context, incomplete) if one[1] not in ENDED]


def jobs_that_ended(context: typer.Context, incomplete: str) -> list[Named]:
    """Jobs that have ended."""
    return [one for one in jobs(context, incomplete) if one[1] in ENDED]


def sites(context: typer.Context, incomplete: str) -> list[Named]:
    """Sites that the aggregator knows."""
    return _of_context(context, SITES, incomplete)


def sites_here(incomplete: str) -> list[str]:
    """Sites whose state is on this machine."""
    try:
        found = sorted(path.name for path in (_home() / "sites").iterdir() if path.is_dir())
    except (OSError, FedbusError):
        return []
    return [name for name in found if name.startswith(incomplete) and NAME.fullmatch(name)][:MOST_NAMES]


def remember(broker_url: str | None, kind: str, named: Iterable[Named]) -> None:
    """Keep names that a command was told, for the next Tab. Whatever is in the way of that is no matter."""
    with contextlib.suppress(OSError, FedbusError):
        place = _place(broker_url)
        known = {JOBS: _known(place, JOBS), SITES: _known(place, SITES)} | {kind: list(named)}
        _write(place, known)


def also(broker_url: str | None, job: str) -> None:
    """Keep the id of a job that was just submitted."""
    with contextlib.suppress(OSError, FedbusError):
        others = [one for one in _known(_place(broker_url), JOBS) if one[0] != job]
        remember(broker_url, JOBS, [(job, "submitted"), *others])


def ask() -> None:
    """What the process beside does: ask for all names, and write them down."""
    import asyncio

    from fedbus.console.client import Client
    from fedbus.console.settings import SubmitterSettings
    from fedbus.runtime.logging import configure_logging

    async def names() -> dict[str, list[Named]]:
        async with Client(settings) as client:
            of_jobs, of_sites = await client.jobs(), await client.sites()
        newest = [(line.job, line.state) for line in reversed(of_jobs)]
        return {JOBS: newest, SITES: [(line.site, line.state) for line in of_sites]}

    settings = SubmitterSettings.load(timeout_s=ANSWER_WITHIN_S)
    configure_logging("critical", settings.log_format)
    place = _place(None)
    _write(place, asyncio.run(names()))


def _of_context(context: typer.Context, kind: str, incomplete: str) -> list[Named]:
    """The names of a kind that begin like this; none where anything is wrong, for a Tab is no time to say it."""
    try:
        environment = _environment(context)
        place = _place(environment.get("FEDBUS_BROKER_URL"), environment)
        if not _fresh(place):
            _ask_beside(place, environment)
        return [one for one in _known(place, kind) if one[0].startswith(incomplete)]
    except (OSError, ValueError, FedbusError):
        return []


def _environment(context: typer.Context) -> dict[str, str]:
    """The environment as the command would have it, with what is given on its line."""
    given = {**context.find_root().params, **context.params}
    names = {"broker_url": "FEDBUS_BROKER_URL", "kit": "FEDBUS_KIT", "config": "FEDBUS_CONFIG"}
    typed = {names[key]: str(value) for key, value in given.items() if key in names and value}
    return {**os.environ, **typed}


def _place(broker_url: str | None, environment: Mapping[str, str] = os.environ) -> Path:
    """The file for one broker and login; its name says neither, and nothing in it is made of a password."""
    url = broker_url or environment.get("FEDBUS_BROKER_URL", "")
    nameable = re.sub(r"(//[^:@/]*):[^@/]*@", r"\1@", url)
    what = [nameable, environment.get("FEDBUS_KIT", ""), environment.get("FEDBUS_CONFIG", "")]
    name = hashlib.sha256("\n".join(what).encode()).hexdigest()[:16]
    return _home() / "completion" / f"{name}.json"


def _home() -> Path:
    if given := os.environ.get("FEDBUS_HOME"):
        return Path(given)
    from fedbus.runtime.settings import default_home  # costs time, which a Tab has little of

    return default_home()


def _fresh(place: Path) -> bool:
    """Whether the names are new, or are being asked for."""
    age_s, asked_s = _age_s(place), _age_s(place.with_suffix(".asked"))
    return age_s < FRESH_S or asked_s < min(age_s, ASKED_S)


def _age_s(path: Path) -> float:
    """Of a file, since it was written; infinite when it is not there, or was written in the future."""
    with contextlib.suppress(OSError):
        age_s = time.time() - path.stat().st_mtime
        return age_s if age_s >= 0.0 else math.inf
    return math.inf


def _ask_beside(place: Path, environment: Mapping[str, str]) -> None:
    """Start the process that asks, and wait a moment for it. What it needs to know it has from its environment."""
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    place.with_suffix(".asked").touch(mode=0o600)
    # -P: what lies in the folder that somebody happens to be in is no module of ours
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", __name__],
        env={key: value for key, value in environment.items() if not key.startswith("_FEDBUS_COMPLETE")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(WAIT_S)


def _known(place: Path, kind: str) -> list[Named]:
    """The names of a kind in the file; none when it is not there or is not what we have written."""
    try:
        with place.open("rb") as file:
            data: Any = json.loads(file.read(MOST_BYTES))
        pairs = [(pair[0], pair[1]) for pair in data[kind]]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return []
    return [pair for pair in pairs if _is_named(*pair)][:MOST_NAMES]


def _is_named(name: object, state: object) -> bool:
    good_name = isinstance(name, str) and NAME.fullmatch(name) is not None
    return good_name and isinstance(state, str) and STATE.fullmatch(state) is not None


def _write(place: Path, known: Mapping[str, Sequence[Named]]) -> None:
    from fedbus.store.files import replace_soon

    bounded = {kind: list(named)[:MOST_NAMES] for kind, named in known.items()}
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with replace_soon(place) as beside:
        beside.touch(mode=0o600)
        beside.write_text(json.dumps(bounded), encoding="utf-8")


if __name__ == "__main__":
    ask()
