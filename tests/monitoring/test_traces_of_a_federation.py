"""One trace an update, from the trainer to the version at every site, as an OTLP receiver gets it."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest

from fedbus.local.federation import wait_until
from fedbus.runtime.tracing import ids_of
from tests.monitoring.conftest import SOON, Seen
from tests.monitoring.otlp import Received

FROM_SITE = ["update", "train", "encode", "send fedbus.updates"]
AT_THE_HUB = ["receive fedbus.updates", "fold", "commit"]
LATER = ["send fedbus.models", "receive fedbus.models", "apply"]


@pytest.fixture(scope="module")
def traces(seen: Seen) -> dict[str, list[Received]]:
    """Spans by trace, of the updates that were folded: they have all come when the last one's has."""
    folded = {f"{seen.job}/{fact.update_id}" for fact in seen.house.folded(seen.job)}
    wanted = {f"{ids_of(key)[0]:032x}" for key in folded}

    def come() -> dict[str, list[Received]] | None:
        found: dict[str, list[Received]] = defaultdict(list)
        for span in list(seen.receiver.spans):
            found[span.trace].append(span)
        names = {trace: {span.name for span in spans} for trace, spans in found.items()}
        whole = all(names.get(trace, set()) >= {*FROM_SITE, *AT_THE_HUB} for trace in wanted)
        versions = sum("send fedbus.models" in names[trace] for trace in wanted if trace in names)
        return {trace: found[trace] for trace in wanted} if whole and versions == seen.versions else None

    return wait_until(come, within=SOON, what="the spans of all updates")


def named(spans: list[Received], name: str) -> list[Received]:
    return [span for span in spans if span.name == name]


def test_each_step_stands_below_the_one_before(traces: dict[str, list[Received]], seen: Seen) -> None:
    for spans in traces.values():
        (root,) = named(spans, "update")
        assert root.parent == ""
        parents = {"train": root, "encode": root, "send fedbus.updates": root}
        for name, above in parents.items():
            (span,) = named(spans, name)
            assert (span.parent, span.service) == (above.span, "fedbus-site")
        (sent,), (received,) = named(spans, "send fedbus.updates"), named(spans, "receive fedbus.updates")
        assert received.parent == sent.span, "the header of the message says so"
        assert received.service == "fedbus-aggregator"
        (folded,), (committed,) = named(spans, "fold"), named(spans, "commit")
        assert folded.parent == received.span
        assert committed.parent == folded.span
        assert root.began_ns <= sent.began_ns <= sent.ended_ns
        assert received.ended_ns <= committed.ended_ns


def test_one_trace_leads_to_the_version_at_every_site_and_the_others_have_links(
    traces: dict[str, list[Received]], seen: Seen
) -> None:
    last = [spans for spans in traces.values() if named(spans, "send fedbus.models")]
    assert len(last) == seen.versions
    by_span = {span.span: span for spans in traces.values() for span in spans}
    for spans in last:
        (committed,), (sent,) = named(spans, "commit"), named(spans, "send fedbus.models")
        assert sent.parent == committed.span
        received = named(spans, "receive fedbus.models")
        assert {span.instance for span in received} == {"site-a", "site-b"}
        assert {span.parent for span in received} == {sent.span}
        applied = named(spans, "apply")
        assert {span.parent for span in applied} <= {span.span for span in received}
        # two updates make a version: the other one's trace leads here, and this one there
        (link,) = committed.links
        other = by_span[link[1]]
        assert other.trace == link[0] != committed.trace
        (theirs,) = named(traces[other.trace], "commit")
        assert theirs.links == ((committed.trace, committed.span),)
        assert theirs.facts["fedbus.version"] == committed.facts["fedbus.version"]
    assert any(named(spans, "apply") for spans in last)


def test_messages_are_described_as_the_conventions_say(traces: dict[str, list[Received]], seen: Seen) -> None:
    spans = next(iter(traces.values()))
    (sent,) = named(spans, "send fedbus.updates")
    facts = sent.facts
    assert facts["messaging.system"] == "rabbitmq"
    assert facts["messaging.destination.name"] == "fedbus.updates"
    assert facts["messaging.operation.type"] == "send"
    assert facts["messaging.message.conversation_id"] == seen.job
    assert re.fullmatch(r"site-[ab]:[0-9a-f]{8}:\d+", facts["messaging.message.id"])
    assert facts["messaging.message.body.size"] > 0
