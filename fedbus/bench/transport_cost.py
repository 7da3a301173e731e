"""What TLS and sealing cost: processor seconds per GB that travels from a site to the aggregator's process.

The chunks of an update go over our own post, publisher and consumer through a real broker, 1 MiB each, 16 unconfirmed.
Four ways, plain and TLS, unsealed and sealed. Each repetition takes all four, every other one backwards, and ratios are
of the same repetition: what else this machine does meanwhile hits all of them. Counted is the processor time of this
process, which sends and receives, and of the broker.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from fedbus.bench.figures import MIB, Row, row
from fedbus.broker.cluster import PrivateCluster
from fedbus.broker.node import PrivateNode
from fedbus.bus import topology as t
from fedbus.bus.connection import Session
from fedbus.bus.consumer import Consumer
from fedbus.bus.declare import declare
from fedbus.bus.envelope import Envelope
from fedbus.bus.post import Post
from fedbus.bus.publisher import Publisher
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.effort import Effort
from fedbus.local.federation import LocalFederation
from fedbus.runtime.allocator import keep_freed_chunks

SITE, JOB = "site-a", "cost"
GOAL_TLS, GOAL_SEALED = 2.0, 1.15
PREFETCH = 64
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to the broker, and whether what goes it is sealed."""

    tls: bool
    sealed: bool

    def __str__(self) -> str:
        return f"{'TLS' if self.tls else 'plain'}, {'sealed' if self.sealed else 'unsealed'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Processor seconds per GB."""

    client: float
    broker: float

    @property
    def both(self) -> float:
        return self.client + self.broker


WAYS = tuple(Way(tls=tls, sealed=sealed) for tls, sealed in itertools.product((False, True), repeat=2))
PLAIN, PLAIN_SEALED, TLS, TLS_SEALED = WAYS


def cost_rows(*, mib: int, times: int) -> list[Row]:
    """Medians of so many repetitions, each way with an update of `mib` MiB, in a process like a daemon with a kit."""
    keep_freed_chunks()
    with tempfile.TemporaryDirectory(prefix="fedbus-bench-") as name:
        folder = Path(name)
        with (
            LocalFederation(folder / "plain", sites=(SITE,)) as plain,
            LocalFederation(folder / "tls", sites=(SITE,), tls={}) as over_tls,
        ):
            costs = asyncio.run(_measure(plain, over_tls, mib, times))
    return list(_rows(costs))


def _rows(costs: dict[Way, list[Cost]]) -> Iterator[Row]:
    for way, found in costs.items():
        for part in ("client", "broker", "both"):
            value = statistics.median(getattr(cost, part) for cost in found)
            yield row(f"{way}: processor seconds per GB, {part}", value, "s/GB")
    for what, over, under, goal in (
        ("TLS / plain, unsealed", TLS, PLAIN, GOAL_TLS),
        ("TLS / plain, sealed", TLS_SEALED, PLAIN_SEALED, GOAL_TLS),
        ("sealed / unsealed, plain", PLAIN_SEALED, PLAIN, GOAL_SEALED),
        ("sealed / unsealed, TLS", TLS_SEALED, TLS, GOAL_SEALED),
    ):
        ratios = [a.both / b.both for a, b in zip(costs[over], costs[under], strict=True)]
        yield row(f"{what}: median of {len(ratios)} pairs", statistics.median(ratios), "", goal)
        yield row(f"{what}: from the lowest", min(ratios), "")
        yield row(f"{what}: to the highest", max(ratios), "")


async def _measure(plain: LocalFederation, over_tls: LocalFederation, mib: int, times: int) -> dict[Way, list[Cost]]:
    costs: dict[Way, list[Cost]] = {way: [] for way in WAYS}
    async with AsyncExitStack() as stack:
        lanes = {way: await Lane.open(stack, way, over_tls if way.tls else plain, kits=over_tls) for way in WAYS}
        for repetition in range(times + 1):
            for way in WAYS if repetition % 2 else reversed(WAYS):
                cost = await lanes[way].move(mib)
                if repetition:  # the first pays for files and memory that are new
                    costs[way].append(cost)
    return costs


class Lane:
    """A site's and the aggregator's sessions on one broker, and a queue between them."""

    def __init__(
        self, job: str, node: PrivateNode | PrivateCluster, *, site: Post, aggregator: Post, out: Session, back: Session
    ) -> None:
        self._job = job
        self._node = node
        self._site, self._aggregator = site, aggregator
        self._publisher, self._back = Publisher(out), back
        self._numbers = itertools.count()

    @classmethod
    async def open(cls, stack: AsyncExitStack, way: Way, federation: LocalFederation, *, kits: LocalFederation) -> Lane:
        """The kits seal on either broker; the certificates log in where there is TLS."""
        identities = {name: kits.identity(name) for name in (SITE, "aggregator")}
        posts = {name: Post(identity if way.sealed else None) for name, identity in identities.items()}
        if (site := posts[SITE].guard) is not None and (aggregator := posts["aggregator"].guard) is not None:
            site.take_offered(aggregator.offered)
        out, back = [
            await stack.enter_async_context(
                Session(
                    federation.url(name),
                    name=f"bench/{name}",
                    identity=identities[name] if way.tls else None,
                    outgoing=posts[name].outgoing,
                )
            )
            for name in (SITE, "aggregator")
        ]
        job = f"{JOB}-{'sealed' if way.sealed else 'open'}"
        bindings = t.Topology(bindings=(t.updates_from(job, SITE),))
        await declare(back, t.FEDERATION + t.job_updates(job) + bindings)
        return cls(job, federation.node, site=posts[SITE], aggregator=posts["aggregator"], out=out, back=back)

    async def move(self, mib: int) -> Cost:
        """Send an update, and read and open every chunk of it."""
        update = m.UpdateId(site=SITE, incarnation="00000000", sequence=next(self._numbers))
        chunks = list(_chunks(self._job, str(update), mib))
        gb = sum(len(chunk.body) for chunk in chunks) / 1e9
        async with Consumer(self._back, t.updates_queue(self._job), prefetch=PREFETCH) as deliveries:
            await deliveries.attached()
            client, broker = time.process_time(), _processor_s(self._node)
            receiving = asyncio.create_task(self._receive(deliveries, len(chunks)))
            await self._publisher.publish_many(self._envelopes(chunks, str(update)))
            await receiving
            return Cost(
                client=(time.process_time() - client) / gb,
                broker=(_processor_s(self._node) - broker) / gb,
            )

    def _envelopes(self, chunks: list[m.Chunk], update: str) -> Iterator[Envelope]:
        manifest = m.UpdateManifest(
            job=self._job,
            update_id=update,
            kind=m.UpdateKind.DELTA,
            base_version=0,
            effort=Effort(num_examples=1, steps=1, seconds=1.0),
            layout_digest="0" * 16,
            frames=1,
            body_bytes=sum(len(chunk.body) for chunk in chunks),
        )
        seal = self._site.update_seal(manifest, secrets.token_bytes(32))
        return (self._site.from_trainer(chunk, site=SITE, seal=seal) for chunk in chunks)

    async def _receive(self, deliveries: Consumer, count: int) -> None:
        read = 0
        async for delivery in deliveries:
            self._aggregator.from_envelope(delivery.envelope)
            await delivery.ack()
            read += 1
            if read == count:
                return


def _chunks(job: str, update: str, mib: int) -> Iterator[m.Chunk]:
    for index in range(mib):
        yield m.Chunk(job=job, transfer=update, part="delta", index=index, count=mib, body=os.urandom(MIB))


def _processor_s(node: PrivateNode | PrivateCluster) -> float:
    """Processor seconds of the broker so far."""
    fields = Path(f"/proc/{node.status().pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S
