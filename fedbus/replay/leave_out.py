"""What a job's params come to without some sites: the recorded deltas, folded and committed again without theirs.

A first-order answer: deltas that the other sites computed later began from versions that these sites had a part in, and
are not computed anew. With a rule that remembers what sites sent last, what it remembers of these sites is left out as
well, also what it did at the checkpoint to begin with. Contributions of sites are commonly judged by such
reconstruction from recorded updates, in place of training again (Fed-Influence, Xue et al. 2021, arXiv 2012.10936;
GTG-Shapley, Liu et al. 2022, arXiv 2109.02053).

Memory: one GlobalModel and one model copy; between its two replays four model copies. Every body is read up
to six times, and by a rule that remembers, twice as often.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from fedbus.errors import StoreError
from fedbus.replay.contributions import ALL, Contributions, Groups, groups_of, norm
from fedbus.replay.replay import Recording, Replay, Told, nothing
from fedbus.store.state_reader import StateReader


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteShare:
    """One site's contribution, see `contributions`."""

    site: str
    updates: int
    norm: float
    cosine: float | None
    left_out: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupChange:
    """One group of tensors: how far it moved with all sites, and how far from there it ends without some.

    cosine: of what the sites left out have added and what the others have, each site with one vote.
    """

    group: str
    elements: int
    moved: float
    difference: float
    cosine: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A job without some sites. `skipped` versions had nothing else in them; the first of `groups` is all params."""

    job: str
    without: tuple[str, ...]
    from_version: int
    to_version: int
    updates: int
    left_out: int
    skipped: int
    seconds: float
    sites: tuple[SiteShare, ...]
    groups: tuple[GroupChange, ...]
    gone: int

    @property
    def says(self) -> str:
        """Who points against the others most, in plain words."""
        points = sorted((share.cosine, share.site) for share in self.sites if share.cosine is not None)
        if len(points) < 3:
            return "with fewer than three sites nobody can say who points against the others"
        (cosine, site), (next_cosine, next_site), *_ = points
        if cosine >= 0:
            return f"no site points against the others; lowest cosine: {site}, {cosine:+.2f}"
        return (
            f"{site} points against the others: cosine {cosine:+.2f}, the next is {next_site} with {next_cosine:+.2f}"
        )


def leave_out(
    state: StateReader, recording: Recording, without: Collection[str], *, told: Told = nothing
) -> tuple[LeftOut, Replay]:
    """Replay a job with all sites and without some, and compare; returns the replay without them too.

    Raises StoreError when a site has no update after the recording's start, or a body is damaged.
    """
    began = time.monotonic()
    counts = Counter(fold.update_id.site for fold in recording.folds)
    _check_known(recording, without, counts)
    groups = groups_of(recording.layout)
    end, moved = _with_all(state, recording, groups, told)
    contributions = Contributions(state, recording, told=told)
    sites = tuple(_shares(contributions, counts, without, {ALL: groups[ALL]}))
    cosines = contributions.cosines(without, groups)
    del contributions  # the second replay needs the memory
    replay = Replay(state, recording, without=without, told=told)
    replay.run()
    result = LeftOut(
        job=recording.job,
        without=tuple(sorted(without)),
        from_version=recording.start.version,
        to_version=replay.version,
        updates=counts.total(),
        left_out=sum(counts[site] for site in without),
        skipped=replay.skipped,
        seconds=time.monotonic() - began,
        sites=sites,
        groups=tuple(
            GroupChange(
                group=group,
                elements=sum(stop - start for start, stop in ranges),
                moved=moved[group],
                difference=norm(replay.model.hidden, ranges, minus=end),
                cosine=cosines[group],
            )
            for group, ranges in groups.items()
        ),
        gone=recording.gone,
    )
    return result, replay


def _check_known(recording: Recording, without: Collection[str], counts: Mapping[str, int]) -> None:
    for site in without:
        if site not in counts:
            since = f" after version {recording.start.version}" if recording.gone else ""
            known = ", ".join(sorted(counts)) or "none"
            raise StoreError(f"job {recording.job} folded no update of a site {site!r}{since}; sites: {known}")


def _with_all(state: StateReader, recording: Recording, groups: Groups, told: Told) -> tuple[Tensor, dict[str, float]]:
    """Where the params end with all sites, and how far each group has moved."""
    replay = Replay(state, recording, told=told)
    start = replay.model.hidden.clone()
    replay.run()
    end = replay.model.hidden
    return end, {group: norm(end, ranges, minus=start) for group, ranges in groups.items()}


def _shares(
    contributions: Contributions, counts: Mapping[str, int], without: Collection[str], everything: Groups
) -> Iterator[SiteShare]:
    for site in sorted(counts):
        yield SiteShare(
            site=site,
            updates=counts[site],
            norm=contributions.norms.get(site, 0.0),
            cosine=contributions.cosines([site], everything)[ALL],
            left_out=site in without,
        )
