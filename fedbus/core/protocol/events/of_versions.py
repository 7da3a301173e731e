"""Events on the way of an update: folded or refused, part of a version, the version scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.events.base import Happened, in_text

MOST_TOLD = 8
"""So many metrics stand in a sentence; all are among the facts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateFolded(Happened):
    """An update counts. `weight` is what it has after `clip`, `train_s` its training in seconds.

    before_clip: its weight before that. rebased: its site was told to train from newer versions. audit: the head of its
    site's audit log that came with it.
    """

    kind: ClassVar[str] = "update-folded"
    update: str
    base_version: int = 0
    staleness: int = 0
    weight: float = 1.0
    clip: float = 1.0
    norm: float = 0.0
    num_examples: int = 0
    body_bytes: int = 0
    train_s: float = 0.0
    data_wait_s: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    before_clip: float = in_text(1.0)
    rebased: bool = in_text(False)
    audit: str = in_text()

    def sentence(self) -> str:
        clipped = f", clipped to {self.clip:.2g} of its length" if self.clip < 1.0 else ""
        rebased = ", told to rebase" if self.rebased else ""
        return f"{self.site}: staleness {self.staleness}, weight {self.before_clip:.3g}{clipped}{rebased}"


def facts_of(effort: Effort) -> dict[str, Any]:
    """The fields of `UpdateFolded` that an update says of its own making."""
    return {
        "num_examples": effort.num_examples,
        "train_s": round(effort.seconds, 3),
        "data_wait_s": round(effort.data_wait_s, 3),
        "metrics": effort.metrics,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateRefused(Happened):
    """An update does not count. initial: it was to be the first params of the job; local: a site's local model."""

    kind: ClassVar[str] = "update-refused"
    update: str = ""
    reason: str = ""
    initial: bool = in_text(False)
    local: bool = in_text(False)
    body_bytes: int = in_text(0)
    audit: str = in_text()

    def sentence(self) -> str:
        what = f"{self.site}: update {self.update}"
        if self.initial or self.local:
            what = f"{'initial params' if self.initial else 'local model'} of {self.site}"
        return f"{what} refused: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionCommitted(Happened):
    """A version was made of these updates, without the `excluded` sites, and published in so many bytes and seconds.

    interval_s: since the version before. step: the length of the server's step.
    """

    kind: ClassVar[str] = "version-committed"
    version: int
    updates: tuple[str, ...] = ()
    reason: str = ""
    excluded: tuple[str, ...] = ()
    body_bytes: int = 0
    publish_s: float = 0.0
    interval_s: float = 0.0
    step: float = 0.0

    def sentence(self) -> str:
        not_believed = f"; not believed: {', '.join(self.excluded)}" if self.excluded else ""
        return f"version {self.version} from {len(self.updates)} updates: {self.reason}{not_believed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionScored(Happened):
    """A site measured a version on its own test data. `means`: of the newest scores of all sites.

    not_finite: metrics that came out as NaN or infinity. what: the model, where it is no version of the job's own;
    `version` is then the number of the question.
    """

    kind: ClassVar[str] = "version-scored"
    version: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    num_examples: int = 0
    means: Mapping[str, float] = field(default_factory=dict)
    not_finite: tuple[str, ...] = ()
    what: str = in_text()

    def sentence(self) -> str:
        parts = [f"{name} {value:.3f}" for name, value in list(self.metrics.items())[:MOST_TOLD]]
        parts += [f"{name} is not finite" for name in self.not_finite[:MOST_TOLD]]
        what = self.what or f"version {self.version}"
        return f"{self.site} scored {what}: {', '.join(parts) or 'no metric'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreNotFinite(Happened):
    """A site measured NaN or infinity."""

    kind: ClassVar[str] = "score-not-finite"
    version: int
    names: tuple[str, ...] = in_text(())

    def sentence(self) -> str:
        names = ", ".join(self.names[:MOST_TOLD])
        return f"version {self.version} scores NaN or infinity at {self.site}: {names}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreFailed(Happened):
    """A site could not score a version, or a model (`what`) that is none of the job's own."""

    kind: ClassVar[str] = "score-failed"
    version: int
    what: str = in_text()
    reason: str = in_text()

    def sentence(self) -> str:
        return f"{self.site} could not score {self.what or f'version {self.version}'}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleChosen(Happened):
    """An automatic choice of a rule, from this version on."""

    kind: ClassVar[str] = "rule-chosen"
    version: int
    rule: str
    reason: str = ""

    def sentence(self) -> str:
        return f"{self.rule} from version {self.version} on: {self.reason}"
