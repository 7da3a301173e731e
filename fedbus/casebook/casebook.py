"""The page: the site's best, median and worst test cases under a model, and what each case scored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedbus.casebook.planes import colour_of, planes_of
from fedbus.report import figures
from fedbus.report import page as p
from fedbus.site.job.put_away import AtSite
from fedbus.training.shown import ShownCase

NOTICE = (
    "This page holds images of patients and names of their studies. It was made for the people of this site, on this "
    "site's disk; fedbus has sent nothing of it anywhere."
)
MOST_CASES = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A case with its pictures, the arrays let go."""

    id: str
    mean: float
    scores: Mapping[str, float]
    colours: Mapping[str, str]
    volumes_ml: Mapping[str, tuple[float, float]]
    outlined: Sequence[p.Picture]
    plain: Sequence[p.Picture]


def drawn(cases: Iterable[ShownCase]) -> list[Drawn]:
    """Draw every case, the best first, those without a score last; one case at a time is in memory."""
    found = [_drawn(case) for case, _ in zip(cases, range(MOST_CASES), strict=False)]
    return sorted(found, key=lambda one: (np.isnan(one.mean), -one.mean, one.id))


def casebook(
    source: AtSite, found: Sequence[Drawn], *, site: str, now: float, worst: int, notes: Sequence[str]
) -> p.Page:
    """The page of cases that stand in order. worst: so many of the worst are shown. now: seconds since the epoch."""
    version = source.held.version
    scored = [one for one in found if not np.isnan(one.mean)]
    state = "which has ended" if source.ended else "which goes on"
    return p.Page(
        title=f"{site}: {source.job}, version {version}",
        lead=f"{len(found)} test cases of this site under version {version} of {source.job}, {state}.",
        notice=NOTICE,
        made_at=now,
        data={
            "job": source.job,
            "version": version,
            "digest": source.held.digest,
            "site": site,
            "cases": [{"id": one.id, "mean": one.mean, "scores": dict(one.scores)} for one in found],
        },
        sections=[
            *([p.Section(title="Dice by class", blocks=_by_class(found))] if scored else []),
            *(p.Section(title=title, blocks=list(_case(one))) for title, one in _chosen(scored, worst)),
            p.Section(title="All cases", blocks=[_table(found)]),
            p.Section(title="What this is", blocks=[_facts(source, site), *(p.Text(text=note) for note in notes)]),
        ],
    )


def _chosen(scored: Sequence[Drawn], worst: int) -> Iterator[tuple[str, Drawn]]:
    """Best, median and worst, each case once."""
    if not scored:
        return
    middle, last = (len(scored) - 1) // 2, len(scored) - 1
    wanted = {0: "The best case", middle: "The median case"} if middle else {0: "The best case"}
    wanted |= {at: _nth_worst(last - at) for at in range(max(0, last - worst + 1), last + 1) if at not in wanted}
    for at in sorted(wanted):
        one = scored[at]
        yield f"{wanted[at]}: {one.id}, mean Dice {one.mean:.3f}", one


def _nth_worst(before: int) -> str:
    return "The worst case" if before == 0 else f"Worst case but {before}"


def _by_class(found: Sequence[Drawn]) -> list[p.Block]:
    names = sorted({name for one in found for name in one.scores})
    rows, table = [], []
    for name in names:
        values = sorted(value for one in found if not np.isnan(value := one.scores.get(name, float("nan"))))
        if values:
            low, quarter, middle, three, high = np.percentile(values, [0, 25, 50, 75, 100]).tolist()
            table.append((name, len(values), float(np.mean(values)), middle, low, high))
            rows.append(figures.Interval(label=name, value=middle, low=quarter, high=three, note=f"n = {len(values)}"))
    columns = ["class", "cases", "mean", "median", "lowest", "highest"]
    says = "; ".join(f"{row.label}: median {row.value:.3f}" for row in rows)
    caption = "median, and between which values the middle half of the cases lies"
    return [figures.intervals(rows, says=says, caption=caption), p.Table(columns=columns, rows=table)]


def _case(one: Drawn) -> Iterator[p.Block]:
    yield p.Table(
        columns=["class", "colour", "Dice", "labelled, ml", "outlined by the model, ml"],
        rows=[(name, one.colours[name], _known(value), *one.volumes_ml[name]) for name, value in one.scores.items()],
    )
    yield p.Pictures(pictures=one.outlined)
    yield p.Text(text="Solid line: the site's label. Dashed line: the model. Below, the same slices without outlines.")
    yield p.Pictures(pictures=one.plain)


def _table(found: Sequence[Drawn]) -> p.Table:
    names = sorted({name for one in found for name in one.scores})
    return p.Table(
        columns=["case", "mean Dice", *names],
        rows=[(one.id, _known(one.mean), *(_known(one.scores.get(name)) for name in names)) for one in found],
        caption="best first; empty: the label has none of the class",
    )


def _known(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else value


def _facts(source: AtSite, site: str) -> p.Facts:
    spec = source.spec.to_dict()
    return p.Facts(
        rows=[
            ("site", site),
            ("job", source.job),
            ("task", spec["task"]),
            ("version", source.held.version),
            ("digest of its params", source.held.digest),
        ]
    )


def _drawn(case: ShownCase) -> Drawn:
    ml = float(np.prod(case.spacing)) / 1000
    volumes = {
        name: (float((case.label == channel).sum()) * ml, float((case.prediction == channel).sum()) * ml)
        for channel, name in case.classes.items()
    }
    return Drawn(
        id=case.id,
        mean=case.mean,
        scores={name: float(case.scores.get(name, float("nan"))) for name in case.classes.values()},
        colours={name: colour_of(channel) for channel, name in case.classes.items()},
        volumes_ml=volumes,
        outlined=planes_of(case),
        plain=planes_of(case, outlines=False),
    )
