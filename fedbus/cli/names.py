"""Names of settings that nobody reads: a misspelt FEDBUS_* variable, or a misspelt table or key of the TOML file.

A file is fedbus's alone, so all that is unknown in it is an error. Variables may be somebody else's (Kubernetes makes
FEDBUS_PORT of a service called fedbus): one is an error when it looks like a setting, and else is told.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from fedbus.errors import SettingsError

PREFIX = "FEDBUS_"
ELSEWHERE = frozenset({"HOME", "CONFIG", "BROKER_URL_FILE"})
"""Read outside the settings of the daemons: by `runtime.settings`, the command line, the image's entry point."""
ALIKE = 0.8
ALIKE_IN_FILE = 0.6
"""Less is asked where a name is an error in any case, and the question is only which one was meant."""
KUBERNETES = re.compile(r"PORT(_[0-9]+_TCP(_(PROTO|PORT|ADDR))?)?|SERVICE_(HOST|PORT)(_[A-Z0-9_]+)?")
"""What it sets in every pod beside a service that is called fedbus."""
LEAST_WORD = 4
"""A name of a few letters is a part of too many others."""


def check_names() -> None:
    """Raise SettingsError for each name that looks like a mistake, warn on standard error of the other variables."""
    unread = sorted(name for name in os.environ if name.upper().startswith(PREFIX) and _setting(name) not in ELSEWHERE)
    if not unread and not os.environ.get(f"{PREFIX}CONFIG"):  # a kit is among the unread
        return  # the usual case needs no import of the settings, which costs time
    from fedbus.aggregator.settings import AggregatorSettings
    from fedbus.console.settings import SubmitterSettings
    from fedbus.runtime.settings import read_toml
    from fedbus.site.settings import SiteSettings
    from fedbus.web.settings import PREFIX as WEB
    from fedbus.web.settings import WebSettings

    tables = {
        settings.table: frozenset(settings.model_fields)
        for settings in (AggregatorSettings, SiteSettings, SubmitterSettings)
    }
    known = frozenset[str]().union(*tables.values())
    of_page = frozenset(WebSettings.model_fields)
    variables = {name.upper() for name in known} | {_setting(f"{WEB}{name}") for name in of_page} | ELSEWHERE
    tables[WebSettings.table] = of_page
    strange = [name for name in unread if _setting(name) not in variables]
    near = {name: nearest(_setting(name), variables) for name in strange if not KUBERNETES.fullmatch(_setting(name))}
    problems = [f"{name}: no such setting; did you mean {PREFIX}{found}?" for name, found in near.items() if found]
    problems += _in_file(read_toml(), tables, known)
    if problems:
        raise SettingsError("\n".join(problems))
    for name in strange:
        print(f"fedbus: {name} is no setting of fedbus: nothing reads it", file=sys.stderr)


def use_kit(kit: Path | None) -> None:
    """The kit of a `--kit`, as if FEDBUS_KIT had named it: for its settings file, whose names are checked."""
    if kit is not None:
        os.environ[f"{PREFIX}KIT"] = str(kit)
        check_names()


def nearest(name: str, known: Iterable[str], *, alike: float = ALIKE) -> str | None:
    """The known name that `name` is a misspelling of, or whose first or last words it is; None when there is none."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=alike)
    long = known if len(name) >= LEAST_WORD else []
    last, first = [k for k in long if k.endswith(f"_{name}")], [k for k in long if k.startswith(f"{name}_")]
    return next(iter([*close, *last, *first]), None)


def _setting(variable: str) -> str:
    return variable.upper().removeprefix(PREFIX)


def _in_file(content: dict[str, object], tables: dict[str, frozenset[str]], known: frozenset[str]) -> list[str]:
    config, kit = (os.environ.get(f"{PREFIX}{name}") for name in ("CONFIG", "KIT"))
    where = f"{PREFIX}CONFIG={config}" if config else f"{PREFIX}KIT={kit}"
    problems = []
    for name, value in content.items():
        if not isinstance(value, dict):
            if name not in known | tables.keys():
                problems.append(f"{where}: no such setting: {name}; {_meant(name, known)}")
        elif name not in tables:
            problems.append(f"{where}: no such table: [{name}]; {_meant(name, tables)}")
        else:
            unknown = [key for key in value if key not in tables[name]]
            problems += [f"{where}: no such setting in [{name}]: {k}; {_meant(k, tables[name])}" for k in unknown]
    return problems


def _meant(name: str, known: Iterable[str]) -> str:
    found = nearest(name, known, alike=ALIKE_IN_FILE)
    return f"did you mean {found}?" if found else f"known: {', '.join(sorted(known))}"
