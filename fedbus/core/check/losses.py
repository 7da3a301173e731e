"""Labels that a model of all sites finds unlikely: faults that no statistics of the data show, such as swapped classes.

Compared is the model's loss on each site's labelled examples, cut at MOST_LOSS so that a single example counts little,
class by class: which classes a site has does not matter, and where one class is hard for everybody nobody is named.

    difference of two sites   sum_c w_c (mean_c - mean'_c) / sum_c w_c,  w_c = n_c n'_c / (n_c + n'_c)
    its standard error        sqrt(sum_c w_c^2 (var_c / n_c + var'_c / n'_c)) / sum_c w_c           (Welch 1947)

A site is named when it is worse than every single other site, by at least LEAST: the largest p of tests that must all
hold (Berger 1982), below ERROR shared among the sites; or one of its classes is, then shared among the classes too. So
a site with an unusual scanner is not named as long as one other site is like it. Means and variances say how many
labels are unlikely only roughly: no count of few leaves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fedbus.core.check.compare import in_words
from fedbus.core.protocol.statistics import ClassLoss, Finding

ERROR = 0.01
LEAST = 0.1
FEW = 5
"""A class with fewer examples at one of two sites is not compared."""
FEW_OF_ONE = 20
"""Nor by itself with fewer than this: the losses of few examples are far from a normal distribution."""
Z95 = 1.96

Losses = Mapping[str, ClassLoss]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How much higher the loss of one site is than another's, with its standard error."""

    mean: float
    error: float

    @property
    def p(self) -> float:
        """One-sided, by the normal distribution."""
        return 0.5 * math.erfc(self.mean / self.error / math.sqrt(2)) if self.error > 0 else 1.0


def of_losses(sites: Mapping[str, Losses]) -> Iterator[Finding]:
    """Findings on the labels of each site, by the losses of its classes under one model of all sites."""
    for site, mine in sites.items():
        others = {other: theirs for other, theirs in sites.items() if other != site}
        if len(others) < 2:
            continue  # of two that differ nobody can say which one is wrong
        overall = _worst(mine, list(others.values()), list(mine))
        classes = _classes(mine, list(others.values()), sites=len(sites))
        if classes or _holds(overall, ERROR / len(sites)):
            yield _finding(site, mine, others, classes)


def difference(mine: Losses, theirs: Losses, words: Sequence[str]) -> Difference | None:
    """How much higher the loss is at one site than at another, over these classes; None: nothing to compare."""
    few = FEW if len(words) > 1 else FEW_OF_ONE
    weights = mean = variance = 0.0
    for word in words:
        one, other = mine.get(word), theirs.get(word)
        if one is None or other is None or one.mean is None or other.mean is None:
            continue
        n, m = one.examples or 0, other.examples or 0
        if n < few or m < few:
            continue
        weight = n * m / (n + m)
        weights += weight
        mean += weight * (one.mean - other.mean)
        variance += weight**2 * ((one.variance or 0.0) / n + (other.variance or 0.0) / m)
    return Difference(mean=mean / weights, error=math.sqrt(variance) / weights) if weights > 0 else None


def _classes(mine: Losses, others: Sequence[Losses], *, sites: int) -> list[str]:
    """Classes whose labels are less likely here than at every other site that has them, at least two."""
    limit = ERROR / (sites * max(1, len(mine)))
    return [word for word in mine if _holds(_worst(mine, others, [word], least=2), limit)]


def _worst(mine: Losses, others: Sequence[Losses], words: Sequence[str], *, least: int = 1) -> list[Difference]:
    found = [one for theirs in others if (one := difference(mine, theirs, words)) is not None]
    return found if len(found) >= least else []


def _holds(found: Sequence[Difference], limit: float) -> bool:
    return bool(found) and all(one.p < limit and one.mean >= LEAST for one in found)


def overall(losses: Losses) -> tuple[float, float]:
    """The mean loss of a site over its examples, and its standard error."""
    known = [one for one in losses.values() if one.mean is not None and one.examples]
    total = sum(one.examples or 0 for one in known)
    if not total:
        return 0.0, 0.0
    mean = sum((one.examples or 0) * (one.mean or 0.0) for one in known) / total
    variance = sum((one.examples or 0) * (one.variance or 0.0) for one in known) / total**2
    return mean, math.sqrt(variance)


def _finding(site: str, mine: Losses, others: Mapping[str, Losses], classes: Sequence[str]) -> Finding:
    of = f"of class {in_words(classes)} " if classes and len(classes) < len(mine) else ""
    words = classes if of else list(mine)
    told = ((name, {word: losses[word] for word in words if word in losses}) for name, losses in others.items())
    figure = ", ".join(f"{name} {_said(losses)}" for name, losses in [(site, {w: mine[w] for w in words}), *told])
    return Finding(
        kind="unlikely-labels",
        severity="warning",
        sites=(site,),
        text=f"many labels {of}at {site} are not what the model of all sites would say",
        figure=f"mean loss with 95 % interval: {figure}",
        advice="look at these labels there: are classes exchanged, or contours drawn by another rule?",
    )


def _said(losses: Losses) -> str:
    mean, error = overall(losses)
    return f"{mean:.2f} ({max(0.0, mean - Z95 * error):.2f} to {mean + Z95 * error:.2f})"
