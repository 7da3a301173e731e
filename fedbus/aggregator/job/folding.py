"""From complete updates to versions: the main path of a job at the aggregator.

    take       complete update → screen → inspect → receive → fold
    settle     facts of all that was taken since the last time durable, in one write
    commit     the same, with the fact of the version in that write → new params → model log, confirmed → checkpoint
               when it is time, which is written while folding goes on
    tell       receipts: after the commit that an update has made due, so that its site goes on from that version
    restore    newest checkpoint + the facts after it; what was not published is published again, same bytes

The decisions are `core.Aggregation`'s, the tensors `ModelKeeper`'s; this file is the order of things.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from fedbus.aggregator.job import receipts
from fedbus.aggregator.job.checkpointing import Checkpointing
from fedbus.aggregator.job.verdicts import refuse
from fedbus.aggregator.job.version_spans import begin_version
from fedbus.aggregator.model.keeper import ModelKeeper, Outgoing
from fedbus.aggregator.model.log import ModelLogWriter
from fedbus.aggregator.tools import Tools
from fedbus.aggregator.trouble import body_errors
from fedbus.core.protocol import events
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.layout import Layout
from fedbus.core.rules.aggregation import Aggregation
from fedbus.core.rules.facts import (
    Arrival,
    Committed,
    Duplicate,
    Fact,
    Folded,
    Refused,
)
from fedbus.core.rules.remarks import Remarks
from fedbus.core.spec.training import TrainingSpec
from fedbus.core.words import counted
from fedbus.errors import DecodeError
from fedbus.runtime.faults import Point
from fedbus.runtime.metrics import COMMIT_S, FOLD_S, READ_S
from fedbus.runtime.tracing import FOLD
from fedbus.tensors.global_model import Inspection


class Folding:
    """Updates and versions of one job whose params have `layout`. One update at a time."""

    def __init__(
        self,
        job: str,
        spec: TrainingSpec,
        layout: Layout,
        *,
        aggregation: Aggregation,
        keeper: ModelKeeper,
        checkpoints: Checkpointing,
        log: ModelLogWriter,
        tools: Tools,
    ) -> None:
        self._job = job
        self._spec = spec
        self.layout = layout
        self._aggregation = aggregation
        self._keeper = keeper
        self._checkpoints = checkpoints
        self._log = log
        self._tools = tools
        self._metrics = tools.telemetry.metrics
        self._remarks = Remarks()
        self._receipts: list[m.Receipt] = []
        self._untold: list[m.Receipt] = []
        self._in_scratch: Folded | None = None
        self._unsettled: list[tuple[Folded, m.UpdateManifest]] = []
        self._last_seq = 0
        self._since_version = time.monotonic()
        self.snapshot_wanted = False
        self.redone = ""
        """What `restore` had to do again, in words; empty when nothing."""

    # -------------------------------------------------------------- one update

    async def take(self, manifest: m.UpdateManifest) -> None:
        """Decide on a complete update; `settle` makes the decision durable. Until then a kill undoes it."""
        update_id = m.UpdateId.parse(manifest.update_id)
        verdict: Folded | Refused | Duplicate | None = self._screen(manifest, update_id)
        if verdict is None:
            verdict = await self._inspect(manifest, update_id)
        match verdict:
            case Duplicate():
                await receipts.repeat(self._job, manifest.update_id, self._tools)
            case Folded():
                self._in_scratch = verdict
                self._unsettled.append((verdict, manifest))
            case Refused():
                await self.settle()
                await self.refused(verdict, manifest)

    async def settle(self) -> None:
        """Fold the last update that was taken, and record what was decided since the last time."""
        if self._unsettled:
            await self._fold_last()
            await self._record()

    async def _fold_last(self) -> None:
        """Fold the last update that was taken, which no other one pushed into the buffer."""
        if self._in_scratch is not None:
            await self._tools.compute(self._fold_scratch)
            self._tools.reached(Point.FOLDED)

    async def _record(self, *version: Committed) -> None:
        """Make durable what was decided since the last time, and the version that it makes, all or nothing."""
        decided, self._unsettled = self._unsettled, []
        told = [receipts.receipt_of(self._job, fact) for fact, _ in decided]
        facts: list[Fact] = [*(fact for fact, _ in decided), *version]
        self._last_seq = await receipts.record(self._job, told, self._tools, facts=facts)
        if decided:
            self._tools.reached(Point.DECIDED)
        self._receipts += told
        self._untold += told
        for fact, manifest in decided:
            await self._say_folded(fact, manifest)

    async def tell(self) -> None:
        """Tell the sites what became of their updates, once what is due was committed."""
        told, self._untold = self._untold, []
        await receipts.tell(told, self._tools)

    def _screen(self, manifest: m.UpdateManifest, update_id: m.UpdateId) -> Refused | Duplicate | None:
        verdict = self._aggregation.screen(
            update_id=update_id,
            base_version=manifest.base_version,
            num_examples=manifest.effort.num_examples,
            now=time.monotonic(),
        )
        if verdict is None and manifest.layout_digest != self.layout.digest:
            reason = (
                f"layout {manifest.layout_digest} differs from the job's {self.layout.digest}: the site's task makes"
                " another model; install the same release of the task everywhere"
            )
            return self._aggregation.refuse(update_id, reason=reason)
        return self._aggregation.refuse(update_id, reason=verdict.reason) if isinstance(verdict, Refused) else verdict

    async def _inspect(self, manifest: m.UpdateManifest, update_id: m.UpdateId) -> Folded | Refused | Duplicate:
        try:
            inspection = await self._tools.compute(self._fold_and_inspect, manifest.update_id)
        except DecodeError as exc:
            return self._aggregation.refuse(update_id, reason=f"body: {exc}")
        if inspection.problem:
            return self._aggregation.refuse(update_id, reason=f"body: {inspection.problem}")
        arrival = Arrival(
            update_id=update_id,
            base_version=manifest.base_version,
            effort=manifest.effort,
            norm=inspection.norm,
            values_norm=inspection.values_norm,
            scale=inspection.scale,
        )
        return self._aggregation.receive(arrival, now=time.monotonic())

    def _fold_and_inspect(self, update_id: str) -> Inspection:
        """One way to the compute thread and back for an update, not two."""
        self._fold_scratch()
        began = time.perf_counter()
        with body_errors():
            inspection = self._keeper.inspect(update_id)
        self._metrics.observe(READ_S, time.perf_counter() - began, job_id=self._job)
        return inspection

    def _fold_scratch(self) -> None:
        if self._in_scratch is not None:
            key, began_at, began = f"{self._job}/{self._in_scratch.update_id}", time.time(), time.perf_counter()
            self._keeper.fold(self._in_scratch)
            self._in_scratch = None
            took_s = time.perf_counter() - began
            self._metrics.observe(FOLD_S, took_s, job_id=self._job)
            self._tools.telemetry.tracing.record(FOLD, key, began_at=began_at, ended_at=began_at + took_s)

    async def refused(self, verdict: Refused, manifest: m.UpdateManifest) -> None:
        """Make a refusal durable and known."""
        if self._aggregation.wait_for_new_version:
            self._aggregation.set_idle(verdict.update_id.site)
        refusal = await refuse(manifest, verdict.reason, tools=self._tools, drop=self._keeper.drop)
        self._last_seq = refusal.sequence
        self._receipts.append(refusal.receipt)

    async def _say_folded(self, fact: Folded, manifest: m.UpdateManifest) -> None:
        site = fact.update_id.site
        folded = events.UpdateFolded(
            site=site,
            update=manifest.update_id,
            base_version=fact.base_version,
            staleness=fact.staleness,
            weight=round(fact.weight * fact.clip, 6),
            clip=round(fact.clip, 6),
            norm=round(fact.norm, 6),
            body_bytes=manifest.body_bytes,
            **events.facts_of(fact.effort),
            before_clip=fact.weight,
            rebased=fact.rebase is not None,
            audit=manifest.audit,
        )
        await self._tools.announcer.event(self._job, folded)
        for text in self._remarks.on_folded(fact, self._aggregation.peers(site)):
            await self._tools.announcer.event(self._job, events.SiteStandsOut(site=site, remark=text))

    # -------------------------------------------------------------- one version

    async def publish_first(self) -> None:
        """Put the params as they are into the model log."""
        await self._publish_snapshot()

    async def commit(self, reason: str | None = None) -> None:
        """Make the buffer a version and publish it; settles what was taken, in the same write."""
        await self._fold_last()
        now, began_at = time.monotonic(), time.time()
        compared = self._aggregation.to_compare(now=now, reason=reason)
        gram = None if compared is None else await self._tools.compute(self._keeper.gram, compared)
        fact = self._aggregation.commit(now=now, reason=reason, gram=gram)
        await self._record(fact)
        self._tools.reached(Point.COMMIT_RECORDED)
        await self._checkpoints.read()
        delta = await self._tools.compute(self._make, fact)
        self._tools.reached(Point.COMMITTED)
        told, began = tuple(self._receipts), time.monotonic()
        self._receipts = []
        sending = begin_version(self._tools.telemetry.tracing, self._job, fact, began_at=began_at)
        sent_bytes = await self._publish(delta, told, snapshot=self._log.wants_snapshot(fact.version))
        sending.end(body_bytes=sent_bytes)
        now = time.monotonic()
        excluded = fact.combination.excluded if fact.combination else ()
        committed = events.VersionCommitted(
            version=fact.version,
            updates=tuple(map(str, fact.update_ids)),
            reason=fact.reason,
            excluded=tuple(excluded),
            body_bytes=sent_bytes,
            publish_s=round(now - began, 3),
            interval_s=round(now - self._since_version, 3),
            step=round(fact.step, 6),
        )
        await self._tools.announcer.event(self._job, committed)
        if fact.rule:
            rule = events.RuleChosen(version=fact.version, rule=fact.rule, reason=fact.rule_reason)
            await self._tools.announcer.event(self._job, rule)
        await self._say_influence()
        self._since_version = now
        if self._checkpoints.due(now=now):
            await self._begin_save()

    def _make(self, fact: Committed) -> Outgoing:
        began = time.perf_counter()
        made = self._keeper.commit(fact)
        self._metrics.observe(COMMIT_S, time.perf_counter() - began, job_id=self._job)
        return made

    async def _say_influence(self) -> None:
        """Whose influence is far from its share now, or is back."""
        influence = self._aggregation.influence
        influence.note_cosines(self._keeper.model.cosines)
        for site, found in influence.news():
            event = events.SiteInfluence(site=site, influence=round(found.influence, 4), share=round(found.share, 4))
            await self._tools.announcer.event(self._job, event)

    async def save(self) -> None:
        """Write a checkpoint and wait until it is durable. Only while the buffer is empty."""
        await self._checkpoints.written()
        await self._begin_save()
        await self._checkpoints.written()

    async def _begin_save(self) -> None:
        await self._checkpoints.begin(version=self._aggregation.version, fact_seq=self._last_seq)

    async def snapshot_if_wanted(self) -> None:
        """Serve sites that asked for a snapshot, all at once."""
        if self.snapshot_wanted:
            self.snapshot_wanted = False
            await self._publish_snapshot()

    async def _publish_snapshot(self) -> None:
        version = self._aggregation.version
        await self._finish(version, (), delta=None, snapshot=await self._send_snapshot(version))

    async def _publish(self, delta: Outgoing, told: tuple[m.Receipt, ...], *, snapshot: bool) -> int:
        """Publish a version that was just made: its frames come into being here."""
        sent = await self._send(m.DELTA, delta)
        whole = await self._send_snapshot(delta.version) if snapshot else None
        return await self._finish(delta.version, told, delta=sent, snapshot=whole)

    async def _send_snapshot(self, version: int) -> m.Part:
        return await self._send(m.SNAPSHOT, await self._tools.compute(self._keeper.snapshot, version))

    async def _send(self, part: str, outgoing: Outgoing) -> m.Part:
        return await self._log.send(
            outgoing.version, part, outgoing.frames, count=outgoing.count, compute=self._tools.compute
        )

    async def _finish(
        self, version: int, told: tuple[m.Receipt, ...], *, delta: m.Part | None, snapshot: m.Part | None
    ) -> int:
        digest = await self._tools.compute(self._keeper.digest)
        sent_bytes = await self._log.finish(version, digest=digest, delta=delta, snapshot=snapshot, receipts=told)
        self._tools.reached(Point.PUBLISHED)
        mark = self._tools.ledger.mark_published
        await self._tools.store(mark, self._job, version, at=time.time(), chain=self._log.chain)
        self._tools.reached(Point.MARKED)
        return sent_bytes

    # -------------------------------------------------------------- after a restart

    async def restore(self) -> None:
        """Bring numbers and tensors back to where the facts say they are; publish what was not."""
        facts = await self._facts()
        for seq, fact in facts:
            self._aggregation.apply(fact)
            self._last_seq = seq
        self._aggregation.restart_timers(now=time.monotonic())
        published = await self._tools.store(self._tools.ledger.last_published, self._job)
        told = receipts.by_version(self._job, [fact for _, fact in facts])
        again = await self._replay(facts, told, published)
        if again:
            self.redone = f"{counted(again, 'version')} published again"
        self._receipts = told.get(self._aggregation.version + 1, [])
        self.snapshot_wanted = published >= 0

    async def _replay(self, facts: list[tuple[int, Fact]], told: Mapping[int, list[m.Receipt]], published: int) -> int:
        """Make every version after the checkpoint again; publish those that the model log may lack, and count them."""
        again = 0
        made = self._keeper.restore(self.layout, facts)
        while (delta := await self._tools.compute(next, made, None)) is not None:
            if delta.version > published >= 0:
                await self._publish(delta, tuple(told.get(delta.version, ())), snapshot=False)
                again += 1
        return again

    async def _facts(self) -> list[tuple[int, Fact]]:
        rows = await self._tools.store(self._tools.ledger.facts, self._job)
        return [(row.seq, row.fact) for row in rows]
