"""The site daemon: settings → open adapters → loop → stop. It moves bytes and never imports torch.

    control    fedbus.site.<name> → offers are answered, messages about a job go to its worker
    status     every status interval: what is done for each job; renews the lease
    job ...    one worker per accepted job, see `job.worker`; what goes wrong in one is that job's trouble
    source     if one is set: a child process looks for new labels now and then, see `source_watch`
    rules      if there is a policy: its file, its hours and its day are looked at every second, and at SIGHUP
    SIGUSR2    `fedbus site stop --now`: the end within a second and without a word, see `stopping`
    SIGUSR1    `fedbus retry`: what failed is tried now, what was given up is offered again

A site whose policy cannot be read takes itself out (Leave, with the reason), is silent, and joins when it can be read.

Stop order: the trainers end, then Leave is published (nobody waits for this site from then on), then the connections
close. Updates that await their receipt stay in the outbox and are sent again after the next start.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import time
from collections import Counter
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from functools import partial
from typing import Any, Self

import structlog

import fedbus
from fedbus.bus import topology as t
from fedbus.bus.connection import Session
from fedbus.bus.consumer import Consumer
from fedbus.bus.post import SEAL_KEY, ControlMessage, Post
from fedbus.bus.stream import StreamReader
from fedbus.bus.url import BrokerUrl
from fedbus.core.job.hospital import Submission
from fedbus.core.job.policy import Accept, Decline, SitePolicy
from fedbus.core.protocol import messages as m
from fedbus.core.protocol.activities import Activity
from fedbus.core.protocol.limits import MOST_ACTIVITIES
from fedbus.core.spec.head import JobSpec
from fedbus.errors import BusError, DataError, ProtocolError, RepeatedError, SettingsError, StoreError
from fedbus.runtime.allocator import keep_freed_chunks
from fedbus.runtime.cage import keep_memory_private
from fedbus.runtime.faults import fault_hook
from fedbus.runtime.lifecycle import until_stopped
from fedbus.site.audit import JobLines, logins, open_audit
from fedbus.site.cage import check_cage, empty_temporary, source_cage, trainer_cage
from fedbus.site.door import Door
from fedbus.site.job import assignment
from fedbus.site.job.audited import audited
from fedbus.site.job.hand_back import Receiver
from fedbus.site.job.loop import StartTrainer
from fedbus.site.job.put_away import discard, put_away
from fedbus.site.job.trainer import start_trainer
from fedbus.site.job.worker import JobWorker, left_over
from fedbus.site.labels import Labels
from fedbus.site.places import Places, default_places, device_meant
from fedbus.site.rules import SiteRules
from fedbus.site.rules_watch import RulesWatch
from fedbus.site.settings import SiteSettings
from fedbus.site.source_watch import SourceWatch
from fedbus.site.stopping import check_not_stopped, hear_the_plug
from fedbus.sources.journal import JournalFile
from fedbus.store.files import make_folder
from fedbus.store.lock import StateLock
from fedbus.training.registry import task_names
from fedbus.training.sayable import Sayable, type_name

CONTROL_PREFETCH = 8
LEAVE_LIMIT = timedelta(seconds=3)
LONGEST_PAUSE_S = 60.0

log = structlog.get_logger()


async def run_site(settings: SiteSettings, stop: asyncio.Event) -> None:
    """Run until `stop` is set. Raises DataError, StoreError, LoginError, NameTakenError or SettingsError."""
    _check_data(settings)
    check_cage(settings)
    cage = trainer_cage(settings)
    if cage is not None:
        keep_memory_private()
    async with Site(settings, start=partial(start_trainer, cage=cage)) as site:
        await site.run(stop)
        empty_temporary(cage)


def _check_data(settings: SiteSettings) -> None:
    folder = settings.site_data
    if settings.source is not None:
        make_folder(folder)  # the source fills it
        return
    if not folder.is_dir():
        raise DataError(f"data folder {folder} does not exist: give the folder with this site's data (--data)")
    if not any(folder.iterdir()):
        raise DataError(f"data folder {folder} is empty: put this site's data there, or give another folder (--data)")


class Site:
    """Open adapters and the workers of all accepted jobs."""

    def __init__(self, settings: SiteSettings, *, start: StartTrainer = start_trainer) -> None:
        self._settings = settings
        self._start = start
        self._name = settings.site_name
        self._session_id = secrets.token_hex(8)
        self._stack = AsyncExitStack()
        self._workers: dict[str, JobWorker] = {}
        self._try_again = asyncio.Event()
        self._troubles: Counter[str] = Counter()
        self._given_up: set[str] = set()
        self._outlawed: set[str] = set()
        self._places = Places(settings.max_jobs or default_places(settings.device))
        self._reached = fault_hook(settings.fault)
        installed = frozenset(task_names())
        unknown = sorted(set(settings.tasks or ()) - installed)
        if unknown:
            raise SettingsError(
                f"tasks: {', '.join(unknown)} not installed here; installed: {', '.join(sorted(installed)) or 'none'}"
            )
        self._source: SourceWatch | None = None
        self._labels: Labels | None = None
        self._floor = SitePolicy(
            site=self._name,
            installed_tasks=installed,
            allowed_tasks=None if settings.tasks is None else frozenset(settings.tasks),
            min_batch_size=settings.min_batch_size,
            min_contributors=settings.min_contributors,
            data_tags=settings.data_tags or (),
        )

    async def __aenter__(self) -> Self:
        settings, stack = self._settings, self._stack
        url, identity = settings.url_for(self._name), settings.identity()
        self._identity = identity
        login = BrokerUrl.parse(url).user if identity is None else identity.name
        if login != self._name:
            whose = "the broker URL's login" if identity is None else f"the certificate's name in {identity.kit}"
            raise SettingsError(
                f"site {self._name!r} must log in under its own name, {whose} is {login!r}: correct --name or "
                f"{'FEDBUS_BROKER_URL' if identity is None else 'FEDBUS_KIT'}"
            )
        # before the lock, by which `fedbus retry` finds us: unheard, the signal would end the process
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._try_again.set)
        hear_the_plug()
        stack.enter_context(StateLock(make_folder(settings.state_dir)))
        check_not_stopped(settings.state_dir, self._name)  # behind the lock, by which `fedbus site stop` finds us
        if identity is not None:
            keep_freed_chunks()
        self._post = Post(identity, seal_key=settings.state_dir / SEAL_KEY)
        self._rules = SiteRules(self._floor, settings.policy_path, state=settings.state_dir, now=time.time)
        self._rules_watch = RulesWatch(self._rules, self) if self._rules.are_written else None

        def session(*, name: str, follows: Session | None = None) -> Session:
            return Session(
                url,
                name=name,
                identity=identity,
                outgoing=self._post.outgoing,
                retry_login=True,
                follows=follows,
                on_state=logins(self._audit, name, url, identity),
            )

        # before anything is said to anybody: without it nothing leaves
        self._audit = await stack.enter_async_context(
            open_audit(settings, self._rules, identity, session=self._session_id)
        )
        self._job_lines = JobLines(self._audit, self._rules)
        self._watch_source()
        self._control = await stack.enter_async_context(session(name=f"{self._name}/control"))
        self._bulk_out = await stack.enter_async_context(session(name=f"{self._name}/updates", follows=self._control))
        self._bulk_in = await stack.enter_async_context(session(name=f"{self._name}/models", follows=self._control))
        self._door = Door(
            self._name,
            post=self._post,
            control=self._control,
            bulk=self._bulk_out,
            audit=self._audit,
            rules=self._rules,
        )
        stack.callback(self._door.close)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    def _watch_source(self) -> None:
        source, state = self._settings.source, self._settings.state_dir / "source"
        if source is None:
            return
        data = self._settings.site_data.resolve()
        self._labels = Labels(JournalFile(state), data=data, min_count=source.min_count)
        self._source = SourceWatch(
            source,
            data=data,
            state=state.resolve(),
            labels=self._labels,
            on_new=self._labels_came,
            cage=source_cage(self._settings),
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then say goodbye."""
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(self._serve(), name="serve")
            await until_stopped(stop, serving)
        await self._leave()

    async def _serve(self) -> None:
        """Nothing is said before the control queue is ours: another daemon may run under the same name."""
        queue = t.site_queue(self._name)
        async with (
            Consumer(self._control, queue, prefetch=CONTROL_PREFETCH, exclusive=True) as deliveries,
            asyncio.TaskGroup() as group,
        ):
            self._group = group
            await deliveries.attached()
            await self._join()
            log.info("site-ready", site=self._name, broker=str(self._control.url), tasks=list(self._rules.policy.tasks))
            group.create_task(self._report(), name="status")
            group.create_task(self._try_when_told(), name="try now")
            if self._source is not None:
                group.create_task(self._source.run(), name="source")
            if self._rules_watch is not None:
                group.create_task(self._rules_watch.run(), name="rules")
            await self._obey(deliveries)

    async def _try_when_told(self) -> None:
        while True:
            await self._try_again.wait()
            self._try_again.clear()
            log.info("try-now", text="what failed is tried at once; jobs that were given up are offered again")
            for worker in list(self._workers.values()):
                worker.try_now()
            await self._join()

    async def rules_changed(self) -> None:
        """Other rules hold: jobs that they do not allow end here, and the site joins by them, or leaves."""
        self._job_lines.rules_changed()
        for job, worker in list(self._workers.items()):
            if (why := self._rules.shut or self._rules.refusal(job)) is not None:
                self._outlawed.add(job)
                await worker.withdraw(why)
        self._given_up.clear()
        await self._join()

    async def time_turned(self) -> None:
        """The hours of the policy have begun or are over, or it is another day."""
        for worker in list(self._workers.values()):
            await worker.rules_changed()

    async def _labels_came(self) -> None:
        """What waits for data goes on, and jobs that were given up are offered again."""
        for worker in list(self._workers.values()):
            await worker.labels_came()
        if self._given_up:
            self._given_up.clear()
            await self._join()

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(LEAVE_LIMIT.total_seconds()):
                await self._door.say(m.Leave(site=self._name, session=self._session_id))
        except TimeoutError:
            log.warning(
                "leave-unsaid",
                text="the broker, or the disk of the audit log, is not there; the lease runs out by itself",
            )

    # -------------------------------------------------------------- saying

    async def _join(self) -> None:
        await self._door.say(
            m.Join(
                site=self._name,
                session=self._session_id,
                tasks=self._rules.policy.tasks,
                fedbus_version=fedbus.__version__,
                device=device_meant(self._settings.device),
                seal_keys={} if self._post.guard is None else self._post.guard.seal_keys.texts(),
            )
        )
        if (shut := self._rules.shut) is not None:
            await self._door.say(m.Leave(site=self._name, session=self._session_id, reason=shut))

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(self._settings.status_interval_s)
            if self._rules.shut is not None:
                continue
            done = (*(worker.activity for worker in self._workers.values()), *self._left_over())
            await self._door.say(
                m.SiteStatus(
                    site=self._name,
                    session=self._session_id,
                    lease_s=self._settings.lease_s,
                    jobs=done[:MOST_ACTIVITIES],  # no more are read; of what is left over the rest is told later
                    said_at=time.time(),
                )
            )

    def _left_over(self) -> list[m.JobActivity]:
        """Jobs that may have ended while this site was away: the aggregator says so, and their files go."""
        names = left_over(self._settings, but=self._workers)
        return [m.JobActivity(job=name, activity=Activity.NO_PART, version=-1) for name in names]

    # -------------------------------------------------------------- obeying

    async def _obey(self, deliveries: Consumer) -> None:
        async for delivery in deliveries:
            try:
                await self._take(self._post.from_aggregator(delivery.envelope, site=self._name))
            except RepeatedError as exc:
                log.info("repeated", error=str(exc))
            except ProtocolError as exc:
                log.warning("control-message", error=str(exc))
                self._job_lines.refused(exc)
            await delivery.ack()

    async def _take(self, message: Any) -> None:
        match message:
            case m.RollCall():
                await self._join()
            case m.CertificateRenewed() if self._identity is not None:
                from fedbus.site.renewal import take_in  # loads cryptography

                self._identity = take_in(self._identity, message)
                self._job_lines.certificate_changed(self._identity)
                self._post.believe(self._identity, self._identity.verifier())
            case m.JobOffer():
                await self._answer(message)
            case (
                m.InitialParamsRequest()
                | m.JobStarted()
                | m.Receipt()
                | m.StepBudget()
                | m.ResendRequest()
                | m.ScoreRequest()
                | m.StatisticsRequest()
                | m.JobEnded()
            ) if worker := self._workers.get(message.job):
                await self._hand_over(worker, message)
            case m.JobEnded(job=job):
                # it ended while this site was away or had given it up
                put_away(self._settings, job)
            case m.JobForgotten(job=job) if job not in self._workers:
                discard(self._settings, job)
                with suppress(OSError):  # what cannot be deleted stays: no reason to end the work for others
                    assignment.kept_file(self._settings, job).unlink()

    async def _hand_over(self, worker: JobWorker, message: ControlMessage) -> None:
        """What goes wrong over a message of one job ends the work for that job, which is taken up again."""
        self._job_lines.told(message)
        try:
            await worker.on_control(message)
        except ProtocolError:
            raise
        except Exception as exc:
            if not _is_the_jobs_own(exc):
                raise
            worker.fail(exc)

    async def _answer(self, offer: m.JobOffer) -> None:
        self._job_lines.offered(offer)
        decision, submission = self._decide(offer)
        match decision:
            case Accept(spec=spec):
                log.info("accepted", job=offer.job, task=spec.task)
                self._rules.take(offer.job, spec, submission)
                await self._take_up(offer.job, spec, offer.submitter)
            case Decline(reason=reason):
                log.warning("declined", job=offer.job, reason=reason)
                self._job_lines.declined(offer.job, reason)
                await self._door.say(m.OfferAnswer(site=self._name, job=offer.job, accepted=False, reason=reason))

    def _decide(self, offer: m.JobOffer) -> tuple[Accept | Decline, Submission]:
        try:
            submission = self._post.submission(offer)
        except ProtocolError as exc:
            return Decline(reason=str(exc)), Submission(submitter="")
        return self._rules.policy.decide_offer(offer.spec, submission), submission

    async def _take_up(self, job: str, spec: JobSpec, submitter: str) -> None:
        """Work for a job, if that is not being done, and say so."""
        if job not in self._workers:
            try:
                self._begin(job, spec, submitter)
            except (StoreError, OSError) as exc:
                log.exception("job-not-begun", job=job)
                reason = Sayable(f"the site's state folder cannot be used ({type_name(type(exc))})")
                await self._door.say(m.OfferAnswer(site=self._name, job=job, accepted=False, reason=reason))
                return
        await self._door.say(assignment.accepting(job, self._name, self._workers[job].layout_digest))

    def _begin(self, job: str, spec: JobSpec, submitter: str) -> None:
        terms = partial(self._job_lines.terms, spec.task, submitter)
        worker = JobWorker(
            job,
            spec,
            settings=self._settings,
            reader=partial(StreamReader, self._bulk_in),
            post=self._post,
            lane=self._door.lane(job, terms),
            say=self._door.say,
            start=audited(self._start, self._audit, job),
            places=self._places,
            submitter=submitter,
            labels=self._labels,
            receiver=self._receiver,
            rules=self._rules if self._rules.are_written else None,
            reached=self._reached,
        )
        self._workers[job] = worker
        self._job_lines.accepted(job, terms())
        self._group.create_task(self._work(worker, job, spec, submitter), name=job)

    @property
    def _receiver(self) -> Receiver | None:
        source = self._settings.source
        if source is None or self._source is None or not source.hands_back:
            return None
        return Receiver(settings=source, publish=self._source.publish)

    async def _work(self, worker: JobWorker, job: str, spec: JobSpec, submitter: str) -> None:
        try:
            await worker.run()
        except Exception as exc:
            if not _is_the_jobs_own(exc):
                raise
            await self._after_trouble(job, exc)
            if (why := self._rules.refusal(job) or self._rules.shut) is None:
                return await self._take_up(job, spec, submitter)
            self._rules.drop(job)
            self._given_up.add(job)
            await self._door.say(assignment.declining(job, self._name, why))
        else:
            del self._workers[job]
            allowed = self._rules.drop(job)
            if worker.ended:
                put_away(self._settings, job)
            else:
                self._given_up.add(job)
                self._job_lines.stopped(job, "not allowed any more" if job in self._outlawed else "given up")
                if job in self._outlawed and allowed:
                    await self._join()  # the rules have changed once more while its work was ending
                self._outlawed.discard(job)

    async def _after_trouble(self, job: str, exc: Exception) -> None:
        """Whatever goes wrong here in one job must not end the work for the others; it is taken up again."""
        self._troubles[job] += 1
        pause_s = min(2.0 ** self._troubles[job], LONGEST_PAUSE_S)
        log.exception("job-trouble", job=job, retry_s=pause_s)
        self._job_lines.stopped(job, f"{type_name(type(exc))}; taken up again")
        said = Sayable(
            f"something went wrong in the site's daemon ({type_name(type(exc))}), its log has the text;"
            f" the job is taken up again in {pause_s:g} s"
        )
        # fatal: what it was asked is lost with the worker
        await self._door.say(assignment.trouble(job, self._name, said, restarts=self._troubles[job], fatal=True))
        await asyncio.sleep(pause_s)
        del self._workers[job]


def _is_the_jobs_own(exc: BaseException) -> bool:
    """Whether other jobs can go on: not when the broker cannot be used."""
    if isinstance(exc, BaseExceptionGroup):
        return all(_is_the_jobs_own(one) for one in exc.exceptions)
    return isinstance(exc, Exception) and not isinstance(exc, BusError)
