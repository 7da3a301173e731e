"""The jobs of a site: offers are answered, each accepted job has a worker, what goes wrong in one is its own trouble.

A job whose worker meets an error is taken up again after a pause that grows. One that the site has given up, or that
its rules do not allow any more, is offered again with the next Join.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import structlog

from fedbus.bus.post import ControlMessage
from fedbus.bus.stream import StreamReader
from fedbus.core.job.hospital import Submission
from fedbus.core.job.policy import Accept, Decline
from fedbus.core.protocol import messages as m
from fedbus.core.protocol import wire
from fedbus.core.protocol.activities import Activity
from fedbus.core.spec.head import JobSpec
from fedbus.errors import BusError, ProtocolError, StoreError
from fedbus.runtime.faults import Reached
from fedbus.site.adapters import Adapters
from fedbus.site.job import assignment
from fedbus.site.job.audited import audited
from fedbus.site.job.hand_back import Receiver
from fedbus.site.job.loop import StartTrainer
from fedbus.site.job.put_away import discard, put_away
from fedbus.site.job.worker import JobWorker, left_over
from fedbus.site.places import Places, default_places
from fedbus.site.settings import SiteSettings
from fedbus.training.sayable import Sayable, type_name

LONGEST_PAUSE_S = 60.0

log = structlog.get_logger()


class SiteJobs:
    """Of one site: `group` owns the work for each job, `join` says anew that the site is here."""

    def __init__(
        self,
        settings: SiteSettings,
        adapters: Adapters,
        *,
        start: StartTrainer,
        reached: Reached,
        group: asyncio.TaskGroup,
        join: Callable[[], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._name = settings.site_name
        self._post = adapters.post
        self._rules = adapters.rules
        self._audit = adapters.audit
        self._job_lines = adapters.lines
        self._source = adapters.source
        self._models = adapters.models
        self._door = adapters.door
        self._telemetry = adapters.telemetry
        self._start = start
        self._reached = reached
        self._group = group
        self._join = join
        self._workers: dict[str, JobWorker] = {}
        self._troubles: Counter[str] = Counter()
        self._given_up: set[str] = set()
        self._outlawed: set[str] = set()
        self._places = Places(settings.max_jobs or default_places(settings.device))

    @property
    def activities(self) -> tuple[m.JobActivity, ...]:
        """What is done for each job; then the jobs that may have ended while this site was away.

        Of those that have ended the aggregator says so, and their files go.
        """
        left = left_over(self._settings, but=self._workers)
        away = (m.JobActivity(job=name, activity=Activity.NO_PART, version=-1) for name in left)
        return (*(worker.activity for worker in self._workers.values()), *away)

    @property
    def unsettled(self) -> int:
        """Updates that await their receipt."""
        return sum(worker.unsettled for worker in self._workers.values())

    @property
    def versions(self) -> dict[str, int]:
        """Of each job that is worked for, the version that is held here; -1: none."""
        return {job: worker.activity.version for job, worker in self._workers.items()}

    def try_now(self) -> None:
        """A person has changed something: what failed is tried at once."""
        for worker in list(self._workers.values()):
            worker.try_now()

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

    async def labels_came(self) -> None:
        """What waits for data goes on, and jobs that were given up are offered again."""
        for worker in list(self._workers.values()):
            await worker.labels_came()
        if self._given_up:
            self._given_up.clear()
            await self._join()

    async def take(self, message: wire.Message) -> None:
        """Take a control message about a job. Raises ProtocolError."""
        match message:
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
                self._telemetry.metrics.forget(job)
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
            reader=partial(StreamReader, self._models),
            post=self._post,
            lane=self._door.lane(job, terms),
            say=self._door.say,
            start=audited(self._start, self._audit, job),
            places=self._places,
            submitter=submitter,
            labels=None if self._source is None else self._source.labels,
            receiver=self._receiver,
            rules=self._rules if self._rules.are_written else None,
            telemetry=self._telemetry,
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
        return Receiver(settings=source, publish=self._source.watch.publish)

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
            if worker.begins_anew and not worker.ended:
                return await self._take_up(job, spec, submitter)
            allowed = self._rules.drop(job)
            if worker.ended:
                self._telemetry.metrics.ended(job)
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
