"""The line of updates that wait to be decided: counted by site, and bounded."""

from __future__ import annotations

import asyncio

from fedbus.aggregator.incoming.complete import Complete, Unwanted
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.effort import Effort


def manifest(site: str, sequence: int) -> m.UpdateManifest:
    return m.UpdateManifest(
        job="heart",
        update_id=f"{site}:0123abcd:{sequence}",
        kind=m.UpdateKind.DELTA,
        base_version=0,
        effort=Effort(num_examples=1),
        layout_digest="1a",
        frames=1,
        body_bytes=1,
    )


async def test_what_waits_is_counted_by_site_until_it_is_taken() -> None:
    line = Complete()
    line.put_nowait(manifest("mercy", 1))
    line.put_nowait(Unwanted(manifest=manifest("mercy", 2), reason="too many"))
    line.put_nowait(None)
    line.put_nowait(manifest("ucsf", 1))
    assert (line.waiting("mercy"), line.waiting("ucsf"), line.waiting("va")) == (2, 1, 0)
    await line.get()
    assert (line.waiting("mercy"), line.waiting("ucsf")) == (1, 1)


async def test_whoever_fills_the_line_waits_until_there_is_room() -> None:
    # given a line that is full
    line = Complete(most=2)
    for sequence in range(2):
        line.put_nowait(manifest("mercy", sequence))
    waiting = asyncio.create_task(line.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    # when one is taken, then it goes on
    await line.get()
    async with asyncio.timeout(30):
        await waiting


async def test_nudges_fill_no_line() -> None:
    line = Complete(most=1)
    for _ in range(10):
        line.put_nowait(None)
    async with asyncio.timeout(30):
        await line.room()


async def test_the_next_update_to_be_folded_is_taken_past_nudges() -> None:
    line = Complete()
    line.put_nowait(None)
    line.put_nowait(manifest("mercy", 1))
    found = line.next_delta()
    assert found == manifest("mercy", 1)
    assert line.waiting("mercy") == 0
    assert line.empty()


async def test_what_is_no_update_to_be_folded_stays_first_in_the_line() -> None:
    # given an update that is to be refused before one that is to be folded
    line = Complete()
    unwanted = Unwanted(manifest=manifest("mercy", 1), reason="too many")
    line.put_nowait(unwanted)
    line.put_nowait(manifest("mercy", 2))
    # when the next one to be folded is asked for
    assert line.next_delta() is None
    # then nothing has left the line, and the order is the same
    assert line.waiting("mercy") == 2
    assert not line.empty()
    assert [await line.get(), await line.get()] == [unwanted, manifest("mercy", 2)]


async def test_an_empty_line_has_no_next_update() -> None:
    assert Complete().next_delta() is None


async def test_updates_wait_on_in_order_while_only_what_else_comes_is_taken() -> None:
    # given two updates, and one that nobody wants between them
    line = Complete()
    unwanted = Unwanted(manifest=manifest("ucsf", 1), reason="too many")
    for item in (manifest("mercy", 1), unwanted, manifest("mercy", 2), None):
        line.put_nowait(item)
    # when a job that pauses looks at the line
    assert [await line.get_but_deltas(), await line.get_but_deltas()] == [unwanted, None]
    # then the updates are there still, counted, and come first when it goes on
    assert (line.waiting("mercy"), line.waiting("ucsf")) == (2, 0)
    line.put_nowait(manifest("va", 1))
    assert [line.next_delta(), await line.get(), line.get_nowait()] == [
        manifest("mercy", 1),
        manifest("mercy", 2),
        manifest("va", 1),
    ]
    assert line.empty()


async def test_what_nobody_wants_is_taken_past_updates_that_wait() -> None:
    line = Complete()
    unwanted = Unwanted(manifest=manifest("ucsf", 1), reason="too many")
    line.put_nowait(unwanted)
    assert line.next_delta() is None
    assert await line.get_but_deltas() == unwanted
