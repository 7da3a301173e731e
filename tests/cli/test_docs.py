"""Pages say what is there: their jobs are accepted, their commands and options exist, their links lead somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from fedbus.cli.commands import app
from fedbus.core.spec import kinds

ROOT = Path(__file__).parents[2]
DOCS = [ROOT / "README.md", ROOT / ".github/CONTRIBUTING.md", *sorted((ROOT / "deploy").glob("**/*.md"))]
BY_NAME = [str(path.relative_to(ROOT)) for path in DOCS]
COMMAND = re.compile(r"(?:`|^ *)fedbus ((?:-|[a-z])[^`\n#]*)", re.MULTILINE)


def jobs_of(page: str) -> Iterator[str]:
    """What is a whole job, not a few keys of one."""
    for text in re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL):
        if re.search("^task:", text, re.MULTILINE):
            yield text if re.search("^name:", text, re.MULTILINE) else f"name: a\n{text}"


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.strip().lower()).replace(" ", "-") for head in heads}


@cache
def every_command() -> Any:
    """All commands; they are made anew each time that typer is asked, which takes long."""
    return typer.main.get_command(app)


def wrong_words(line: str) -> list[str]:
    """Words of a command line that are no command, or no option of it."""
    command = every_command()
    words = [re.sub(r"[\[\],.:;)]", "", word).split("=")[0] for word in line.split()]
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
        if "make" in getattr(command, "commands", {}) and words and words[0].endswith("yaml"):
            command = command.commands["make"]  # `provision FILE.yaml` is short for it
    options = {option for param in command.params for option in (*param.opts, *param.secondary_opts)} | {"--help"}
    wrong = [word for word in words if re.match("-+[a-z]", word) and word not in options]
    wanted = hasattr(command, "commands") and not command.invoke_without_command
    return [*words[:1], *wrong] if wanted and words and re.match("[a-z]", words[0]) else wrong


@pytest.mark.parametrize("page", BY_NAME)
def test_jobs_of_a_page_are_accepted(page: str) -> None:
    for text in jobs_of(page):
        kinds.parse_yaml(text)


@pytest.mark.parametrize("page", sorted(str(path.relative_to(ROOT)) for path in (ROOT / "deploy/jobs").iterdir()))
def test_jobs_to_begin_with_are_accepted(page: str) -> None:
    kinds.parse_yaml((ROOT / page).read_text("utf-8"))


@pytest.mark.parametrize("page", BY_NAME)
def test_commands_of_a_page_exist(page: str) -> None:
    lines = COMMAND.findall((ROOT / page).read_text("utf-8"))
    assert {line: wrong for line in lines if (wrong := wrong_words(line))} == {}


@pytest.mark.parametrize("page", BY_NAME)
def test_links_of_a_page_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text("utf-8")):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
