"""The spans of a version: it is made of many updates, and each of their traces leads to it."""

from __future__ import annotations

from fedbus.core.rules.facts import Committed
from fedbus.runtime.tracing import COMMIT, NO_SPAN, SEND_VERSION, Span, Tracing


def begin_version(tracing: Tracing, job: str, fact: Committed, *, began_at: float) -> Span:
    """A version was made since `began_at`, seconds since the epoch, and is now sent: the span of its way out.

    That stands below the commit in the trace of the last update, which has links to those of all others.
    """
    if not tracing.on:
        return NO_SPAN
    *others, last = [f"{job}/{update_id}" for update_id in fact.update_ids] or [f"{job}/{fact.version}"]
    facts = {"version": fact.version, "updates": len(fact.update_ids)}
    commit = tracing.begin(COMMIT, last, links=map(tracing.newest, others), began_at=began_at)
    for key in others:
        tracing.begin(COMMIT, key, links=[commit.traceparent], began_at=began_at).end(**facts)
    commit.end(**facts)
    return tracing.begin(SEND_VERSION, f"{job}/{fact.version}", came=commit.traceparent)
