"""The events of a long job of many sites, as they come from the aggregator."""

from __future__ import annotations

from collections.abc import Iterator

from fedbus.core.protocol import events as e
from fedbus.core.protocol.messages import Event

JOB = "long"
BUFFER = 8


def long_job(
    *, events: int, sites: int, job: str = JOB, began_at: float = 0.0, every_s: float = 0.1
) -> Iterator[Event]:
    """So many events: sites join, then updates, a version of every eight of them, and a score at each second one."""
    for number, happened in zip(range(events), _happened(sites), strict=False):
        yield e.wire_of(happened, job=job, at=began_at + every_s * number)


def _happened(sites: int) -> Iterator[e.Happened]:
    names = [f"site-{number:03}" for number in range(sites)]
    yield e.JobSubmitted(login="ana", task="digits")
    yield from (e.SiteAccepted(site=name) for name in names)
    yield e.JobRunning(sites=tuple(names))
    update, version = 0, 0
    while True:
        made = []
        for _ in range(BUFFER):
            update += 1
            site = names[update * 7 % sites]
            made.append(f"{site}:0123abcd:{update}")
            yield e.UpdateFolded(
                site=site, update=made[-1], staleness=update % 5, body_bytes=1_000, metrics={"loss": 1 / update}
            )
        version += 1
        yield e.VersionCommitted(version=version, updates=tuple(made), body_bytes=5_000)
        if version % 2 == 0:
            auc = 1 - 1 / version
            yield e.VersionScored(
                site=names[version % sites], version=version, metrics={"auc": auc}, means={"auc": auc}
            )
