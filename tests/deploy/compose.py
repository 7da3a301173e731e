"""What Compose makes of files and variables, as the compose specification says it: interpolated, anchored, merged."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "deploy" / "compose"
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")
BY_TARGET = ("volumes", "ports", "secrets", "configs")


def env_of(path: Path) -> dict[str, str]:
    """The variables of an .env file."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """With `${NAME}`, `${NAME:-default}` and `${NAME:?what is missing}`; KeyError where one must be given."""

    def value(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        if variables.get(name):
            return variables[name]
        if kind == "-":
            return str(rest)
        raise KeyError(f"{name}: {rest}")

    return VARIABLE.sub(value, text)


def merged(files: Sequence[Path], variables: Mapping[str, str]) -> dict[str, Any]:
    """The one model that Compose runs, of files in the order of its -f options."""
    whole: dict[str, Any] = {}
    for path in files:
        whole = _over(whole, yaml.safe_load(interpolated(path.read_text(), variables)))
    return whole


def _over(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(below)
    for key, value in above.items():
        old = found.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            found[key] = _over(old, value)
        elif isinstance(old, list) and isinstance(value, list) and key not in ("command", "entrypoint", "test"):
            found[key] = _listed(key, old, value)
        else:
            found[key] = value
    return found


def _listed(key: str, below: list[Any], above: list[Any]) -> list[Any]:
    """Lists are one behind the other; of mounts and ports to one place the later counts."""
    if key not in BY_TARGET:
        return [*below, *above]
    by_target = {_target(each): each for each in (*below, *above)}
    return list(by_target.values())


def _target(each: Any) -> str:
    if isinstance(each, dict):
        return str(each.get("target") or each.get("source"))
    parts = str(each).split(":")
    return parts[1] if len(parts) > 1 and parts[1].startswith("/") else str(each)


def environment_of(service: Mapping[str, Any]) -> dict[str, str]:
    found = service.get("environment", {})
    return dict(found) if isinstance(found, dict) else dict(line.split("=", 1) for line in found)


def mounts_of(service: Mapping[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """Source, target, and whether the container may write, of each mount."""
    for each in service.get("volumes", []):
        source, target, *mode = str(each).split(":")
        yield source, target, "ro" not in mode
