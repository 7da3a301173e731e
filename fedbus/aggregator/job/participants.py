"""The sites of one job: who is let in, who is put out, and what each is told of the model log."""

from __future__ import annotations

import time
from dataclasses import replace

from fedbus.aggregator.incoming.allowance import Allowance
from fedbus.aggregator.incoming.entrance import Entrance
from fedbus.aggregator.job.resyncs import Resyncs
from fedbus.aggregator.job.work import Work
from fedbus.aggregator.model.epochs import Epochs
from fedbus.aggregator.tools import Tools
from fedbus.core.protocol import events
from fedbus.core.protocol import messages as m
from fedbus.errors import SealError
from fedbus.store.ledger_schema import ANYBODY

# A site that lacks an epoch's key asks; it is told all of its keys again.
KEYS_RATE, KEYS_BURST = 0.1, 3.0


class Participants:
    """`entrance` lets sites in, `work` may say no; `resyncs` are asked for the snapshots that joiners begin with.

    epochs: who has the keys of the model log; None without kits.
    """

    def __init__(
        self, job: str, *, work: Work, entrance: Entrance, tools: Tools, resyncs: Resyncs, epochs: Epochs | None = None
    ) -> None:
        self._job = job
        self._work = work
        self._life = work.life
        self._entrance = entrance
        self._tools = tools
        self._resyncs = resyncs
        self._epochs = epochs
        self._keys_asked = Allowance(rate=KEYS_RATE, burst=KEYS_BURST)
        self._enrolled: set[str] = set()
        self._at_the_gate: frozenset[str] = frozenset()

    async def open(self) -> None:
        """Those that the ledger knows take part again, and the epochs of the model log go on."""
        self._enrolled.update(await self._tools.store(self._tools.ledger.participants, self._job))
        for site in self._enrolled - {ANYBODY}:
            self._life.took_part(site)
        if self._epochs is not None:
            await self._epochs.open(self._tell_keys)

    def takes_part(self, site: str) -> bool:
        """Whether the site has ever accepted the job, so that its updates are looked at."""
        return site in self._enrolled or ANYBODY in self._enrolled

    async def answered(self, answer: m.OfferAnswer) -> None:
        """A site accepts or declines."""
        known = answer.site in self._life.accepted_sites
        if answer.layout:
            self._work.layout_said(answer.site, answer.layout)
        if not answer.accepted:
            await self.out(answer.site)
            before = self._life.declined_sites.get(answer.site)
            if self._life.declined(answer.site, answer.reason) and before != answer.reason:
                await self._event(events.SiteDeclined(site=answer.site, reason=answer.reason))
        elif known:
            await self._let_in(answer.site)
        else:
            await self._admit(answer.site)

    async def look_again(self) -> None:
        """The work has learnt more: who waited may come in, and who is in may have to go."""
        for site in sorted(self._at_the_gate):
            await self._admit(site)
        for site in sorted(self._life.accepted_sites):
            if why := await self._work.admission(site):  # what comes later may show what others are
                await self._leave_out(site, why)

    async def _admit(self, site: str) -> None:
        """Let a site in, or leave it out, as the work says; it may have to look at the site first."""
        if not self._life.may_answer(site):
            return  # the work asks no site what it asks those of the job
        why = self._cannot_read(site) or await self._work.admission(site)
        self._at_the_gate = self._at_the_gate - {site} if why is not None else self._at_the_gate | {site}
        if why:
            await self._leave_out(site, why)
        elif why is not None:
            await self._let_in(site)

    async def _let_in(self, site: str) -> None:
        known = site in self._life.accepted_sites
        if not self._life.accepted(site) and not known:
            return
        if not known:
            await self._enrol(site)
            await self._event(events.SiteAccepted(site=site))
        if self._epochs is not None and await self._epochs.let_in(site):
            self._resyncs.ask(site, now=time.monotonic())  # it may come and go without end
        await self.welcome(site)

    async def _enrol(self, site: str) -> None:
        """Durable before the site is told to begin: what it sends must count after any restart."""
        if site not in self._enrolled:
            await self._tools.store(self._tools.ledger.add_participant, self._job, site, at=time.time())
            self._enrolled.add(site)
        await self._entrance.open({site})

    async def _leave_out(self, site: str, why: str) -> None:
        """The site works for the job no more; once it was started anew, it may come again."""
        await self.out(site)
        if self._life.declined(site, why):
            await self._event(events.SiteDeclined(site=site, reason=why))
        await self._tools.announcer.tell(site, m.JobEnded(job=self._job, state=m.JobState.ABORTED, reason=why))

    async def out(self, site: str) -> None:
        """The site left, was left out or revoked: it reads no version that is made from now on."""
        if self._epochs is not None:
            await self._epochs.out(site)

    async def welcome(self, site: str) -> None:
        """Tell a site that the model log is there to follow, if it is, and what it owes."""
        if self._life.state not in (m.JobState.RUNNING, m.JobState.FINISHING):
            return
        if await self._tell_start(site):
            await self._work.welcome(site)

    async def tell_keys_again(self, site: str) -> None:
        """The site may lack a key of the model log; one that asks again and again is not heard."""
        if self._epochs is not None and self._keys_asked.take(site, now=time.monotonic()):
            await self._tell_start(site)

    async def _tell_start(self, site: str) -> bool:
        """Tell where the model log is, with its keys; False when the site may not know, or cannot read it."""
        started = m.JobStarted(job=self._job, session=self._tools.session, log=self._work.stream)
        if self._epochs is not None:
            if not self._epochs.is_member(site):
                return False  # it has left; when it is back, it accepts anew
            if why := self._cannot_read(site):
                await self._leave_out(site, why)
                return False
            try:
                keys = self._epochs.keys_for(site)
            except SealError as exc:
                await self._leave_out(site, f"the keys of the model log cannot be sealed to it: {exc}")
                return False
            started = replace(started, keys=keys, version=self._epochs.published)
        await self._tools.announcer.tell(site, started)
        return True

    def _cannot_read(self, site: str) -> str:
        """Why the broker would not let a site read the model log; "" when it would, or there is no log yet."""
        numbers, log = self._tools.numbers, self._work.stream
        return "" if self._epochs is None or numbers is None or not log else numbers.why_not(site, log)

    async def _tell_keys(self) -> None:
        """Every member learns the key of an epoch before something is sealed with it."""
        if self._life.state in (m.JobState.RUNNING, m.JobState.FINISHING):
            for site in sorted(self._life.accepted_sites):
                await self._tell_start(site)

    async def _event(self, happened: events.Happened) -> None:
        await self._tools.announcer.event(self._job, happened)
