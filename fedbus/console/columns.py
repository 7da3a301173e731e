"""The curve of a job as a table of plain columns, for files and data frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedbus.core.protocol.answers import VersionLine

FIXED = ("version", "at", "seconds", "updates", "contributors")


def columns_of(lines: Sequence[VersionLine]) -> dict[str, list[Any]]:
    """Columns by name, one value a version, None where there is none; sites stand with spaces between them.

    A column `auc` is the mean, `auc:mercy` what the site mercy measured.
    """
    names, sites = metrics_of(lines), sites_of(lines)
    fixed = {name: [getattr(line, name) for line in lines] for name in FIXED}
    fixed["contributors"] = [" ".join(line.contributors) for line in lines]
    means = {name: [line.means.get(name) for line in lines] for name in names}
    of_sites = {
        f"{name}:{site}": [line.scores.get(site, {}).get(name) for line in lines] for name in names for site in sites
    }
    return fixed | means | of_sites


def metrics_of(lines: Sequence[VersionLine]) -> list[str]:
    """All metrics of a curve."""
    in_means = {name for line in lines for name in line.means}
    return sorted(in_means | {name for line in lines for scores in line.scores.values() for name in scores})


def sites_of(lines: Sequence[VersionLine]) -> list[str]:
    """All sites that have scored a version."""
    return sorted({site for line in lines for site in line.scores})
