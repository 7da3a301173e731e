"""The model card of an export: what the model is, on how much data of whom it was trained, and how good it is there.

What is counted or measured of a site comes from what the aggregator knows: counts and scores, nothing of a patient.
After Mitchell et al. 2019, Model Cards for Model Reporting, arXiv 1810.03993.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from fedbus import __version__
from fedbus.core.protocol.answers import JobDetail, as_json
from fedbus.core.words import counted
from fedbus.store.tensor_file import TensorFile

NO_PRIVACY = "no differential privacy: the sites' updates were clipped, no noise was added"
SETTINGS = ("local", "strategy", "server_optimizer", "codec", "staleness", "num_examples_power", "min_contributors")
SITE_COLUMNS = ("num_examples", "updates", "refused", "mean_staleness", "influence", "share", "cosine")
CARD, CARD_JSON = "MODEL_CARD.md", "card.json"


def card_of(detail: JobDetail, *, version: int, params: Path, kind: str) -> dict[str, Any]:
    """The card as JSON-able data, but for `verified`. params: the safetensors file with the version."""
    result: Mapping[str, Any] = detail.result or {}
    spec = dict(detail.spec)
    return {
        "job": detail.job,
        "name": detail.name,
        "task": detail.task,
        "task_config": spec.get("task_config", {}),
        "format": kind,
        "version": version,
        "versions": detail.version,
        "updates": detail.updates,
        "state": detail.state,
        "ended_because": result.get("reason", ""),
        "trained": [_day(detail.started_at), _day(detail.ended_at)],
        "continues": spec.get("continues"),
        "sites": as_json(detail.sites),
        "scores": _scores(result, version),
        "intervals": _intervals(result, version),
        "best": _best(result),
        "settings": {key: spec[key] for key in SETTINGS if key in spec},
        "stays_at_the_sites": list(spec.get("keep", [])),
        "privacy": {"epsilon": None, "says": NO_PRIVACY, "min_contributors": spec.get("min_contributors", 1)},
        "params": _params(params),
        "provenance": as_json(detail.provenance) if detail.provenance else None,
        "made_by": {"fedbus": __version__, "torch": torch.__version__},
    }


def write_card(card: Mapping[str, Any], folder: Path) -> None:
    """Write the card for people and for machines."""
    (folder / CARD).write_text(as_markdown(card))
    (folder / CARD_JSON).write_text(json.dumps(card, indent=1, sort_keys=True) + "\n")


def as_markdown(card: Mapping[str, Any]) -> str:
    """The card for people."""
    return "\n".join(_lines(card)) + "\n"


def _lines(card: Mapping[str, Any]) -> Iterator[str]:
    yield f"# {card['job']}, version {card['version']}"
    yield f"Trained by the task `{card['task']}` in a federation; no hospital's data left it."
    began, ended = card["trained"]
    yield f"Of {card['versions']} versions made from {card['updates']} updates, {began} to {ended}. {_ended(card)}"
    if card["continues"]:
        before = card["continues"]
        yield f"It began with the version `{before['version']}` of {before['job']}."
    yield from ("", "## Data, per site", *_sites(card["sites"]))
    yield from (
        "",
        "## Scores of this version, on each site's own test data",
        *_score_rows(card["scores"], card["intervals"]),
    )
    if best := card["best"]:
        yield f"\nBest version of the job: {best['version']}, mean {best['metric']} {best['value']:.4g}."
    yield from ("", "## Privacy", _sentence(card["privacy"]["says"]))
    yield f"Every version comes from at least {counted(card['privacy']['min_contributors'], 'site')}."
    if card["stays_at_the_sites"]:
        yield f"Tensors that stay at each site and are not in this file: {', '.join(card['stays_at_the_sites'])}."
    yield from ("", "## Where it comes from")
    yield f"sha256 of the params as safetensors: `{card['params']['sha256']}`"
    if card["provenance"]:
        chain = card["provenance"]
        yield f"\nsha256 over the job and the {chain['facts']} facts of the aggregator's ledger: `{chain['sha256']}`"
    yield "\n" + _sentence(card["verified"])
    yield from (
        "",
        "## Settings",
        "```json",
        json.dumps(card["settings"] | {"task_config": card["task_config"]}, indent=1),
    )
    yield "```"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _ended(card: Mapping[str, Any]) -> str:
    return f"The job is {card['state']}" + (f": {card['ended_because']}." if card["ended_because"] else ".")


def _sites(sites: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    shown = [name for name in SITE_COLUMNS if any(name in site for site in sites.values())]
    yield from _table(["site", *(name.replace("_", " ") for name in shown)])
    for name, site in sorted(sites.items()):
        yield _row([name, *(_cell(site.get(key)) for key in shown)])


def _score_rows(scores: Mapping[str, Mapping[str, Any]], overall: Mapping[str, Any]) -> Iterator[str]:
    if not scores:
        yield "This version was not scored at the end of the job."
        return
    metrics = sorted({name for score in scores.values() for name in score.get("metrics", {})})
    yield from _table(["site", "test examples", *metrics])
    for site, score in sorted(scores.items()):
        if score.get("failed"):
            yield _row([site, "could not score it", *("" for _ in metrics)])
            continue
        intervals = score.get("intervals", {})
        values = (_value(score["metrics"].get(name), intervals.get(name)) for name in metrics)
        yield _row([site, str(score.get("num_examples", "")), *values])
    if overall:
        values = (_value(overall.get(name, {}).get("value"), overall.get(name)) for name in metrics)
        yield _row(["over the sites that say intervals", "", *values])
        yield "\nIn brackets: 95 % intervals."


def _value(value: float | None, interval: Mapping[str, Any] | None) -> str:
    """A metric, with its 95 % interval where one is known."""
    text = _cell(value)
    if text and interval and interval.get("low") is not None:
        text += f" ({_cell(interval['low'])} to {_cell(interval['high'])})"
    return text


def _table(names: Sequence[str]) -> Iterator[str]:
    yield _row(names)
    yield "|" + "---|" * len(names)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _scores(result: Mapping[str, Any], version: int) -> dict[str, Any]:
    """What the sites measured of this version; empty when it is neither the last nor the best one."""
    best = result.get("best") or {}
    if version == best.get("version") and best.get("scores"):
        return dict(best["scores"])
    scores = result.get("scores", {}) if version == result.get("version") else {}
    return {site: score for site, score in scores.items() if score.get("version", version) == version}


def _intervals(result: Mapping[str, Any], version: int) -> dict[str, Any]:
    """Of the means over the sites that say them."""
    best = result.get("best") or {}
    of_best = version == best.get("version") and best.get("scores")
    found = best if of_best else result if version == result.get("version") else {}
    return dict(found.get("intervals", {}))


def _best(result: Mapping[str, Any]) -> dict[str, Any] | None:
    best = result.get("best")
    return {name: best[name] for name in ("version", "metric", "value")} if best else None


def _params(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    with TensorFile.open(path) as tensors:
        shapes = [tensor.shape for tensor in tensors.tensors.values()]
    elements = sum(torch.Size(shape).numel() for shape in shapes)
    return {"sha256": digest.hexdigest(), "tensors": len(shapes), "elements": elements}


def _day(at: float | None) -> str:
    return "" if at is None else f"{datetime.fromtimestamp(at, UTC):%F %H:%M} UTC"
