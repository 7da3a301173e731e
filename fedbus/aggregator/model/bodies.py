"""What becomes of a body that is not needed to go on: deleted, or with `keep_updates` moved to the archive.

Only what was folded is ever kept: `fedbus replay` makes the versions from it again. Every step may be done twice, so a
kill in between is mended by doing it again.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedbus.core.rules.facts import Folded
from fedbus.store.ledger import Ledger
from fedbus.store.spool import Spool


def put_away(job: str, folded: Sequence[str], *, ledger: Ledger, spool: Spool) -> None:
    """Two checkpoints cover these folded updates."""
    ledger.forget_chunks(job, spool.put_away(job, folded))


def delete(job: str, update_ids: Sequence[str], *, ledger: Ledger, spool: Spool) -> None:
    """These updates were refused, or held the initial params."""
    spool.remove(job, update_ids)
    ledger.forget_chunks(job, update_ids)


def clear(job: str, *, ledger: Ledger, spool: Spool) -> None:
    """The job is over: nothing of it stays in the spool."""
    folded = [str(row.fact.update_id) for row in ledger.facts(job) if isinstance(row.fact, Folded)]
    gone = set(spool.put_away(job, folded))
    ledger.forget_job_chunks(job, but=[u for u in folded if u not in gone])
    spool.remove_job(job)
