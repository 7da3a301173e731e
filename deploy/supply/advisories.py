"""Known advisories against the pinned versions, asked of OSV; or, where nobody can be asked, the word `not audited`.

A source that cannot be reached, or that does not know of an advisory that is a decade old, has not answered: its empty
list is no all-clear. API: https://google.github.io/osv.dev/post-v1-querybatch/
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from typing import Any

SOURCE = "https://api.osv.dev/v1/querybatch"
KNOWN_BAD = ("jinja2", "2.4.1")
LIMIT_S = 20.0
MOST_BYTES = 16 << 20


class NotAuditedError(Exception):
    """Nobody who knows has answered."""


def advisories(pins: Mapping[str, str], *, source: str = SOURCE) -> dict[str, list[str]]:
    """Ids of advisories by `name==version`; packages without any are left out. Raises NotAuditedError."""
    asked = [KNOWN_BAD, *sorted(pins.items())]
    answers = _ask(source, asked)
    if len(answers) != len(asked) or not _ids(answers[0]):
        raise NotAuditedError(f"{source} answers, and knows nothing of {'=='.join(KNOWN_BAD)}: it is no such source")
    found = {f"{name}=={version}": _ids(answer) for (name, version), answer in zip(asked, answers, strict=True)}
    return {name: ids for name, ids in list(found.items())[1:] if ids}


def _ask(source: str, asked: list[tuple[str, str]]) -> list[Any]:
    queries = [{"package": {"name": name, "ecosystem": "PyPI"}, "version": version} for name, version in asked]
    request = urllib.request.Request(  # noqa: S310  the address is ours or the caller's, no input
        source, json.dumps({"queries": queries}).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:  # noqa: S310
            results = json.loads(answer.read(MOST_BYTES))["results"]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise NotAuditedError(f"{source} gives no answer: {exc}") from exc
    return results if isinstance(results, list) else []


def _ids(answer: Any) -> list[str]:
    found = answer.get("vulns") if isinstance(answer, dict) else None
    return [str(one.get("id")) for one in found or () if isinstance(one, dict)]
