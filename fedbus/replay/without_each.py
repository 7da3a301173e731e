"""A job's params without each of its sites in turn, as files: what `fedbus contribution` lets all sites score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from fedbus.errors import StoreError
from fedbus.export.params_file import write_params
from fedbus.replay.replay import Recording, Replay, Told, nothing
from fedbus.store.state_reader import StateReader


@dataclass(frozen=True, slots=True, kw_only=True)
class Without:
    """A job without one site: what is in `path`. from_version: where the replay began; updates: that were left out."""

    site: str
    path: Path
    from_version: int
    to_version: int
    updates: int


def sites_of(recording: Recording, wanted: Collection[str] = ()) -> list[str]:
    """The sites that can be left out, or those that are wanted of them. StoreError when that leaves nothing to do."""
    counts = Counter(fold.update_id.site for fold in recording.folds)
    if unknown := sorted(set(wanted) - counts.keys()):
        raise StoreError(f"job {recording.job} has no updates of {', '.join(unknown)}; of: {', '.join(sorted(counts))}")
    if len(counts) < 2:
        raise StoreError(f"job {recording.job} has updates of {', '.join(counts) or 'nobody'}: nothing is left without")
    return sorted(set(wanted) or counts)


def without_each(
    state: StateReader, recording: Recording, sites: Collection[str], folder: Path, *, told: Told = nothing
) -> Iterator[Without]:
    """Replay a job once for each site, without it, and write what it comes to into a folder; see `leave_out`."""
    for site in sites:
        replay = Replay(state, recording, without=[site], told=told)
        replay.run()
        path = folder / f"{recording.job}.without.{site}.safetensors"
        known = {"job": recording.job, "without": site, "version": str(replay.version)}
        write_params(path, replay.model.hidden, replay.model.layout, known)
        yield Without(
            site=site,
            path=path,
            from_version=recording.start.version,
            to_version=replay.version,
            updates=sum(fold.update_id.site == site for fold in recording.folds),
        )
