"""The end of a demo: the facts as one JSON-able object, and the same as a table for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fedbus.demo.baselines import Aucs
from fedbus.demo.job import AWAY, LATE
from fedbus.demo.story import SiteStory, Story

FEW = 5
"""With fewer test patients of one class an AUC is mostly chance."""
HOWS = {"local_only": "alone", "pooled": "pooled", "federated": "fedbus"}


def facts_of(story: Story, baselines: Aucs) -> dict[str, Any]:
    """What `--json` writes. AUCs are None where there is none: not scored, or test patients of one class only."""
    picture = story.picture
    scores: Mapping[str, Any] = picture.result.get("scores", {})
    federated = {site: score["metrics"].get("auc") for site, score in scores.items()}
    aucs = {**baselines, "federated": federated}
    return {
        "job": picture.job,
        "versions": picture.version,
        "updates": picture.updates,
        "seconds": round(story.seconds, 1),
        "training_seconds": round(picture.training_s, 1),
        "hospitals": {
            name: _hospital(site, {how: _rounded(aucs[how].get(name)) for how in HOWS})
            for name, site in story.sites.items()
        },
        "events": {
            "joined_late": {"site": LATE, "version": picture.site(LATE).joined_at},
            "left": {"site": AWAY, "version": picture.site(AWAY).left_at},
            "came_back": {
                "site": AWAY,
                "version": picture.site(AWAY).back_at,
                "updates": picture.site(AWAY).updates_since_back,
            },
        },
        "bytes": {"updates": picture.update_bytes, "versions": picture.version_bytes},
    }


def _hospital(site: SiteStory, auc: dict[str, float | None]) -> dict[str, Any]:
    return {
        "patients": site.cohort.patients,
        "test_patients": site.cohort.test_patients,
        "test_patients_healthy": site.cohort.healthy,
        "auc": auc,
        "updates": site.seen.updates,
        "refused": site.seen.refused,
        "mean_staleness": round(site.seen.mean_staleness, 2),
    }


def _rounded(auc: float | None) -> float | None:
    return None if auc is None else round(auc, 4)


def report(facts: Mapping[str, Any]) -> RenderableType:
    """The facts for people, 80 columns wide."""
    title = (
        f"{facts['versions']} versions from {facts['updates']} updates in {facts['training_seconds']:.0f} s"
        f" ({facts['seconds']:.0f} s with RabbitMQ and daemons)"
    )
    lines = [Text(line) for line in (*_notes(facts), "", *_happened(facts))]
    body = Group(Text(title, style="bold"), "", _table(facts), *lines)
    return Padding(body, (0, 0), expand=False)


def _table(facts: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("hospital", no_wrap=True)
    for column in ("patients", "tested", *(f"AUC\n{shown}" for shown in HOWS.values()), "updates", "mean\nstaleness"):
        table.add_column(column, justify="right", no_wrap=True, vertical="bottom")
    for name, found in facts["hospitals"].items():
        mark = "*" if _says_little(found) else " "
        table.add_row(
            name,
            str(found["patients"]),
            str(found["test_patients"]),
            *(f"{_shown(found['auc'][how])}{mark}" for how in HOWS),
            str(found["updates"]),
            f"{found['mean_staleness']:.1f}",
        )
    return table


def _notes(facts: Mapping[str, Any]) -> Iterator[str]:
    for name, found in facts["hospitals"].items():
        if _says_little(found):
            healthy, tested = found["test_patients_healthy"], found["test_patients"]
            yield f"* {name} has {healthy} healthy among {tested} test patients: its AUC says little"
    yield ""
    yield "AUC     on its own test patients: 0.5 is a coin toss, 1 is never wrong"
    yield "alone   trained with this hospital's patients only"
    yield "pooled  trained with all patients in one place, which real hospitals cannot do"
    yield "fedbus  trained together, and no patient left a hospital"
    yield ""
    yield f"fedbus minus alone: {', '.join(_gains(facts['hospitals']))}"


def _gains(hospitals: Mapping[str, Any]) -> Iterator[str]:
    for name, found in hospitals.items():
        alone, federated = found["auc"]["local_only"], found["auc"]["federated"]
        if alone is None or federated is None:
            yield f"{name} not scored"
        else:
            yield f"{name} {federated - alone:+.3f}{'*' if _says_little(found) else ''}"


def _happened(facts: Mapping[str, Any]) -> Iterator[str]:
    late, left, back = (facts["events"][key] for key in ("joined_late", "left", "came_back"))
    if late["version"] is None:
        yield f"{late['site']} did not get ready before the last version"
    else:
        yield f"{late['site']} joined at version {late['version']}, while the others were training"
    if back["version"] is None:
        yield f"{left['site']} left at version {left['version']} and did not get back before the last version"
    else:
        yield (
            f"{left['site']} left at version {left['version']}, came back at version {back['version']}"
            f"; updates since then: {back['updates']}"
        )
    sent = facts["bytes"]
    yield f"sent: {_kb(sent['updates'])} of updates by hospitals, {_kb(sent['versions'])} of versions by the aggregator"


def _says_little(found: Mapping[str, Any]) -> bool:
    healthy: int = found["test_patients_healthy"]
    ill: int = found["test_patients"] - healthy
    return min(healthy, ill) < FEW


def _shown(auc: float | None) -> str:
    return "-" if auc is None else f"{auc:.3f}"


def _kb(size_bytes: int) -> str:
    return f"{size_bytes / 1000:.1f} kB"
