"""Every setting of every daemon as one page: from the settings classes, with the words of the files in `services/`."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from fedbus.aggregator.settings import AggregatorSettings
from fedbus.console.settings import SubmitterSettings
from fedbus.site.settings import SiteSettings
from fedbus.web.settings import WebSettings

ROOT = Path(__file__).parents[2]
DAEMONS = {
    "The aggregator": (AggregatorSettings, "aggregator/aggregator.toml"),
    "A site": (SiteSettings, "site/site.toml"),
    "Who submits and asks": (SubmitterSettings, "publisher/submitter.toml"),
    "The status page": (WebSettings, "aggregator/aggregator.toml"),
}
HEAD = """# Every setting
A setting is looked for in this order: a flag of the command, the environment (`FEDBUS_...`), the TOML file that
`FEDBUS_CONFIG` names (with a kit: `site.toml`, `aggregator.toml` or `submitter.toml` in its folder), the default. Times
are in seconds, sizes in bytes. A name that no setting has is refused, with the one that was probably meant. What a job
asks of its sites stands in the job: [every key of a job](job-spec.md). This page is made from the code:
`deploy/docs-site settings`.
"""


def page() -> str:
    """The page as Markdown."""
    return HEAD + "".join(_section(title, cls, ROOT / "services" / file) for title, (cls, file) in DAEMONS.items())


def _section(title: str, cls: Any, file: Path) -> str:
    told = words_of(file)
    rows = [_row(cls, name, told) for name in cls.model_fields if name != "fault"]
    place = f"Table `[{cls.table}]`; all of it with its defaults: `services/{file.parent.name}/{file.name}`."
    return (
        f"\n## {title}\n{place}\n\n"
        + "| setting | variable | default | what it is |\n|---|---|---|---|\n"
        + "".join(rows)
    )


def _row(cls: Any, name: str, told: dict[tuple[str, str], str]) -> str:
    field = cls.model_fields[name]
    words = told.get((cls.table, name)) or told.get(("", name)) or _docstring(cls, name)
    default = "" if field.is_required() or field.default_factory else _shown(field.default)
    variable = f"`{cls.model_config['env_prefix']}{name.upper()}`"
    return f"| `{name}` | {variable} | {default} | {words.replace('|', chr(92) + '|')} |\n"


def _shown(value: Any) -> str:
    if value in (None, "", ()):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def words_of(file: Path) -> dict[tuple[str, str], str]:
    """The comment above each key of a settings file, by table and key; keys that follow each other share one."""
    table, comment, told, found = "", list[str](), False, dict[tuple[str, str], str]()
    for line in file.read_text("utf-8").splitlines():
        if head := re.fullmatch(r"(?:# )?\[(\w+)\]", line):
            table, comment = head[1], []
        elif key := re.match(r"(?:# )?([a-z_]+) = ", line):
            found.setdefault((table, key[1]), " ".join(comment))
            told = True
        elif line.startswith("# "):
            comment, told = [*([] if told else comment), line[2:]], False
        else:
            comment = []
    return found


def _docstring(cls: Any, name: str) -> str:
    for base in cls.__mro__:
        if name in inspect.get_annotations(base):
            return " ".join(_below(base, name))
    return ""


def _below(base: Any, name: str) -> Iterator[str]:
    """The docstring of a field."""
    (cls,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
    statements = getattr(cls, "body", [])
    for one, after in pairwise(statements):
        is_it = isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name) and one.target.id == name
        if is_it and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            yield " ".join(str(after.value.value).split())
