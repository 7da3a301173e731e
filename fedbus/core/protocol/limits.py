"""How long what a site says may be, applied once, where a message is read. Everything behind that may keep and show it.

    names, numbers   that something is looked up by: refused when they are longer or larger than any of ours
    texts            for people: cut, and what no terminal should get is replaced
    lists            of metrics, tasks, activities: the rest is left out, so that one name too long costs no training

A site one release behind is never refused for what it says to people.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from fedbus.core.protocol import messages as m
from fedbus.core.protocol.spread import Spreads, check_spread
from fedbus.core.protocol.statistics import Statistics, checked, checked_losses
from fedbus.errors import DecodeError

T = TypeVar("T")
MOST_TEXT = 500
MOST_REASON = 200
"""Of a reason that stands in the middle of a sentence."""
MOST_NAME = 64
MOST_METRICS = 256
MOST_TASKS = 256
MOST_ACTIVITIES = 64
MOST_INT = 2**63 - 1
MOST_SEAL_KEYS = 8
MOST_SEAL_KEY = 4000
_ELLIPSIS = "…"


def plain(text: str, most: int = MOST_TEXT) -> str:
    """One line of text of at most `most` characters, without escape sequences and other invisible characters."""
    cut = text if len(text) <= most else text[: most - 1] + _ELLIPSIS
    return "".join(c if c.isprintable() else " " if c.isspace() else "�" for c in cut)


def within_limits(message: Any) -> Any:
    """The message as it may be kept. Raises DecodeError for a name or number that none of ours has."""
    _check_numbers(message)
    for name in _NAMES.get(type(message), ()):
        _check_name(name, getattr(message, name))
    texts = {name: plain(getattr(message, name)) for name in _TEXTS.get(type(message), ())}
    match message:
        case m.Join():
            _check_seal_keys(message.seal_keys)
            tasks = tuple(plain(task, MOST_NAME) for task in message.tasks[:MOST_TASKS])
            return replace(message, tasks=tasks, fedbus_version=texts["fedbus_version"], device=texts["device"])
        case m.SiteStatus():
            return replace(message, jobs=tuple(map(_activity, message.jobs[:MOST_ACTIVITIES])))
        case m.ScoreAnswer():
            names = tuple(plain(name, MOST_NAME) for name in message.not_finite[:MOST_METRICS])
            return replace(
                message,
                metrics=_metrics(message.metrics),
                not_finite=names,
                failed=plain(message.failed),
                spreads=_spreads(message.spreads),
                differences=_spreads(message.differences),
                losses=checked_losses(message.losses),
            )
        case m.StatisticsAnswer(statistics=Statistics() as statistics):
            return replace(message, statistics=checked(statistics), **texts)
        case m.UpdateManifest():
            _check_numbers(message.effort)
            return replace(message, effort=replace(message.effort, metrics=_metrics(message.effort.metrics)))
    return replace(message, **texts) if texts else message


_NAMES: Mapping[type, tuple[str, ...]] = {
    m.Join: ("session",),
    m.SiteStatus: ("session",),
    m.Leave: ("session",),
    m.OfferAnswer: ("layout",),
    m.ScoreAnswer: ("local",),
    m.UpdateManifest: ("layout_digest",),
    m.StatisticsAnswer: ("asked",),
}
_TEXTS: Mapping[type, tuple[str, ...]] = {
    m.Join: ("fedbus_version", "device"),
    m.Leave: ("reason",),
    m.OfferAnswer: ("reason",),
    m.ResyncRequest: ("reason",),
    m.TrainerTrouble: ("error",),
    m.StatisticsAnswer: ("failed",),
}


def _activity(activity: m.JobActivity) -> m.JobActivity:
    m.check_name("job", activity.job)
    _check_numbers(activity)
    return replace(
        activity,
        detail=plain(activity.detail),
        device=plain(activity.device, MOST_NAME),
    )


def _spreads(spreads: Spreads) -> Spreads:
    for spread in spreads.values():
        _check_numbers(spread)
        try:
            check_spread(spread)
        except ValueError as exc:
            raise DecodeError(str(exc)) from exc
    return _metrics(spreads)


def _metrics(metrics: Mapping[str, T]) -> dict[str, T]:
    """The first MOST_METRICS of those whose name is short and can be shown."""
    fine = ((name, value) for name, value in metrics.items() if len(name) <= MOST_NAME and name.isprintable())
    return dict(value for value, _ in zip(fine, range(MOST_METRICS), strict=False))


def _check_seal_keys(keys: Mapping[str, str]) -> None:
    if len(keys) > MOST_SEAL_KEYS or any(len(text) > MOST_SEAL_KEY for pair in keys.items() for text in pair):
        raise DecodeError(f"seal_keys must be at most {MOST_SEAL_KEYS} texts of at most {MOST_SEAL_KEY} characters")


def _check_name(what: str, name: str) -> None:
    if len(name) > MOST_NAME or not name.isprintable():
        raise DecodeError(f"{what} must be at most {MOST_NAME} printable characters, got {len(name)}: {name[:20]!r}…")


def _check_numbers(message: Any) -> None:
    for field in dataclasses.fields(message):
        value = getattr(message, field.name)
        if isinstance(value, int) and not -MOST_INT <= value <= MOST_INT:
            raise DecodeError(f"{field.name} must be an integer of 64 bits, got one of {value.bit_length()}")
