"""The aggregation of one job as a state machine over facts: numbers in, facts out, state = facts applied in order.

What lives here: which update is folded, refused or a duplicate, and when the buffer becomes a version. What may not:
tensors, bytes, clocks (`now` is an argument: seconds, never falling), how updates are weighed (see `strategies`).

    screen(...)      before the body is read: Refused | Duplicate | None; changes nothing
    receive(...)     with the norm known: Folded | Refused | Duplicate; applied at once
    refuse(...)      the caller found the body unusable: Refused | Duplicate; applied at once
    to_compare(...)  the deltas that multi-Krum is to be told the inner products of; changes nothing
    commit(...)      Committed; applied at once; only when `commit_due` gives a reason
    apply(fact)      a fact again, from the ledger; or a Refused that `screen` returned

Rules that hold whatever comes: the version never falls and rises by 1 per commit; an id is decided once, a duplicate
changes nothing; a commit empties the buffer, so a caller that commits whenever one is due (after `receive`, after
`set_active`, at `next_due_at`) never leaves it at its size; what is illegal raises ProtocolError and changes nothing.
A live run and the replay of its facts give the same state to the bit.

Memory: the numbers of each site, the buffer, and the set of decided ids (about 200 bytes each, for ever). `seen` can be
anything with `in` and `add`, such as a ledger's index, so that the set need not be kept here.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Protocol, assert_never

from fedbus.core.protocol.messages import UpdateId
from fedbus.core.rules import guards, screening
from fedbus.core.rules.applied import by_site
from fedbus.core.rules.attendance import Attendance
from fedbus.core.rules.facts import (
    Arrival,
    Combination,
    Committed,
    Duplicate,
    Fact,
    Folded,
    Refused,
    Term,
)
from fedbus.core.rules.influence import Influence
from fedbus.core.rules.memory import Memory
from fedbus.core.rules.peers import Peers
from fedbus.core.rules.robust import Matrix, believed
from fedbus.core.rules.server_step import step_of
from fedbus.core.rules.site_stats import SiteStats
from fedbus.core.rules.site_table import SiteTable
from fedbus.core.rules.strategies import (
    Buffer,
    Evidence,
    Plan,
    examples_say,
    least_contributors,
    settled,
    strategy_of,
)
from fedbus.core.rules.strategies.auto import NOT_MEASURED
from fedbus.core.rules.values import newest_values
from fedbus.core.spec.training import AutoSpec, TrainingSpec
from fedbus.core.words import counted
from fedbus.errors import ProtocolError

SUMS_ANEW = 50
"""So often, in versions, the memory sum is made again: it keeps the rounding of all that ever was part of it."""

__all__ = ["Aggregation", "Arrival", "Committed", "Duplicate", "Fact", "Folded", "Refused", "SeenIds"]


class SeenIds(Protocol):
    """Ids of the updates that were decided. Must not hold an id before its fact is applied."""

    def __contains__(self, update_id: object, /) -> bool: ...

    def add(self, update_id: UpdateId, /) -> None: ...


class Aggregation:
    """Decides for one job. Starts at version 0 with an empty buffer, or where a replay of facts leads."""

    def __init__(self, spec: TrainingSpec, *, now: float, seen: SeenIds | None = None) -> None:
        self._spec = spec
        self._strategy = strategy_of(spec)
        self._seen: SeenIds = set() if seen is None else seen
        self._sites = SiteTable()
        self._attendance = Attendance()
        self._version = 0
        self._updates = 0
        self._entries: list[Folded] = []
        self._memory = Memory()
        self._influence = Influence()
        self._rule, self._rule_reason = "", ""
        self._last_step: float | None = None
        self._began_at = now
        self._first_at: float | None = None

    # -------------------------------------------------------------- what is known

    @property
    def version(self) -> int:
        return self._version

    @property
    def updates(self) -> int:
        """Number of updates folded since version 0."""
        return self._updates

    @property
    def buffer(self) -> tuple[UpdateId, ...]:
        """Ids of the updates folded since the last commit, in order."""
        return tuple(entry.update_id for entry in self._entries)

    @property
    def active(self) -> frozenset[str]:
        return self._sites.active

    @property
    def wait_for_new_version(self) -> bool:
        """Whether a site that has sent its update waits for the next version before it trains again."""
        return self._strategy.wait_for_new_version

    @property
    def all_stats(self) -> Mapping[str, SiteStats]:
        """Numbers of every site that ever had an update decided; read-only."""
        return self._sites.stats

    def site_stats(self, site: str) -> SiteStats:
        """Return the numbers of one site; all zero for a site that never had an update decided."""
        return self._sites.of(site)

    def peers(self, site: str) -> Peers:
        """Return what the other sites bound this one by."""
        return self._sites.peers(site)

    @property
    def too_few(self) -> str:
        """Why nothing is committed now: fewer sites are there than the job asks for; empty when enough are.

        A job that asks for one site goes on as it is: with none there nothing comes, and the caller decides.
        """
        least, there = self._spec.least_sites, len(self.active)
        if least == 1 or there >= least:
            return ""
        return f"{there} of {counted(least, 'site')} {'is' if there == 1 else 'are'} there"

    @property
    def kept_back(self) -> str:
        """Why the buffer becomes no version even at the end: too few sites are there, or in it; empty: it may."""
        sites, least = len(self._attendance.contributed), least_contributors(self._spec)
        if self.too_few or sites >= least:
            return self.too_few
        return f"{counted(sites, 'site')} of the {least} that every version needs contributed"

    def waiting_for(self) -> str:
        """Say what the next version waits for, e.g. 'waiting for 1 more update, buffer 1 of 2'."""
        what = self._strategy.waiting_for(self._view())
        return f"paused: {self.too_few}; {what}" if self.too_few else what

    @property
    def buffer_fill(self) -> tuple[int, int]:
        """How much of what makes a version is in the buffer, and how much is wanted, see `Strategy.fill`."""
        return self._strategy.fill(self._view())

    @property
    def memory(self) -> Memory:
        """What the buffer and the memory sum are made of; to be read only."""
        return self._memory

    @property
    def influence(self) -> Influence:
        """How much each site counts, and should."""
        return self._influence

    @property
    def chosen(self) -> str | None:
        """Which rule weighs now and why, e.g. 'calibrated: ...'; None when the strategy is not one that chooses."""
        if not isinstance(self._spec.strategy, AutoSpec):
            return None
        if not self._rule:
            return f"buffered: {settled(self._spec)}" if settled(self._spec) else NOT_MEASURED
        return f"{self._rule}: {self._rule_reason}"

    # -------------------------------------------------------------- decisions

    def screen(
        self, *, update_id: UpdateId, base_version: int, num_examples: int, now: float | None = None
    ) -> Refused | Duplicate | None:
        """Judge what the manifest says, before the body is read; None: worth reading. Changes nothing.

        `now`: when it came, for the frequency of its site; None: not looked at. A Refused is recorded by `apply`, once
        the caller has stored it.
        """
        site = update_id.site
        if update_id in self._seen:
            return Duplicate(update_id=update_id)
        reason = screening.reason_against(
            self._spec, site, version=self._version, base_version=base_version, num_examples=num_examples
        )
        if reason is None and now is not None:
            reason = screening.reason_against_frequency(site, self.site_stats(site), self.peers(site), now=now)
        return Refused(update_id=update_id, reason=reason) if reason else None

    def receive(self, arrival: Arrival, *, now: float) -> Folded | Refused | Duplicate:
        """Decide on an update whose body was read and measured, and apply the decision."""
        verdict: Folded | Refused | Duplicate | None = self.screen(
            update_id=arrival.update_id,
            base_version=arrival.base_version,
            num_examples=arrival.effort.num_examples,
            now=now,
        )
        if verdict is None:
            reason = screening.reason_against_norm(arrival, self.site_stats(arrival.update_id.site))
            verdict = Refused(update_id=arrival.update_id, reason=reason) if reason else None
        if verdict is None:
            verdict = self._fold(arrival, now=now)
        if not isinstance(verdict, Duplicate):
            self.apply(verdict)
        return verdict

    def refuse(self, update_id: UpdateId, *, reason: str) -> Refused | Duplicate:
        """Refuse an update whose body cannot be used, and apply that."""
        if update_id in self._seen:
            return Duplicate(update_id=update_id)
        fact = Refused(update_id=update_id, reason=reason)
        self.apply(fact)
        return fact

    def set_active(self, sites: Collection[str], *, now: float) -> None:
        """Say which sites train for the job now; a site that is not active is not waited for. Not a fact.

        When sites come back after none was there, deadlines run from `now`: the first one back is not alone in time.
        """
        if sites and not self.active:
            self.restart_timers(now=now)
        self._sites.set_active(sites)
        self._influence.set_active(self.active)
        self._attendance.set_active(self.active)

    def set_idle(self, site: str) -> None:
        """Say that a site sends nothing before the next version, for its update was refused. Not a fact.

        Where sites wait for each new version, to wait for it would be to wait for each other.
        """
        self._attendance.set_idle(site)

    def restart_timers(self, *, now: float) -> None:
        """Let deadlines run from `now`: when training begins, and after a replay, whose clock was another one."""
        self._began_at = now
        self._first_at = now if self._entries else None

    def commit_due(self, *, now: float) -> str | None:
        """Say why a version is to be committed now; None when it is not, always with an empty buffer."""
        if not self._entries or self.too_few:
            return None
        return self._strategy.due(self._view(), now=now)

    def next_due_at(self, *, now: float) -> float | None:
        """Return when to ask `commit_due` again though nothing came: `now` when due, None when time changes nothing."""
        if not self._entries or self.too_few:
            return None
        if self.commit_due(now=now):
            return now
        return self._strategy.due_at(self._view())

    def commit(self, *, now: float, reason: str | None = None, gram: Matrix | None = None) -> Committed:
        """Make the buffer a version, and apply that. A `reason` commits a buffer that is not due, e.g. at the end.

        `gram`: the inner products [K, K] of the deltas of `to_compare`, when there are any. Raises ProtocolError when
        the buffer is empty, `kept_back`, or not due and no reason is given.
        """
        fact = self._decide(now=now, reason=reason, gram=gram)
        self.apply(fact)
        return fact

    def to_compare(self, *, now: float, reason: str | None = None) -> Combination | None:
        """Return the deltas whose inner products `commit` needs to know whom to believe; None: it needs none."""
        return self._compared(self._plan(now=now, reason=reason)[1]) if self._compares else None

    # -------------------------------------------------------------- facts

    def apply(self, fact: Fact) -> None:
        """Change the state as a fact says. ProtocolError, and no change, when it does not fit the state."""
        match fact:
            case Folded():
                self._apply_folded(fact)
            case Refused(update_id=update_id):
                self._check_new(update_id)
                self._sites.put(update_id.site, self.site_stats(update_id.site).with_refused())
                self._seen.add(update_id)
            case Committed():
                self._apply_committed(fact)
            case _:
                assert_never(fact)

    def _apply_folded(self, fact: Folded) -> None:
        self._check_new(fact.update_id)
        if fact.base_version < 0 or fact.base_version + fact.staleness != self._version or fact.staleness < 0:
            raise ProtocolError(
                f"update {fact.update_id} is recorded with base version {fact.base_version} and staleness "
                f"{fact.staleness}, which does not fit version {self._version}"
            )
        if not (0.0 < fact.weight < math.inf and 0.0 <= fact.clip <= 1.0):
            raise ProtocolError(f"update {fact.update_id} is recorded with weight {fact.weight} and clip {fact.clip}")
        self._memory.apply(fact)
        self._influence.on_folded(fact.update_id.site, self._say(fact.num_examples))
        self._sites.put(fact.update_id.site, self.site_stats(fact.update_id.site).with_folded(fact))
        self._attendance.on_folded(fact.update_id.site)
        self._first_at = fact.at if self._first_at is None else self._first_at
        self._entries.append(fact)
        self._updates += 1
        self._seen.add(fact.update_id)

    def _apply_committed(self, fact: Committed) -> None:
        if fact.version != self._version + 1 or fact.update_ids != self.buffer or not fact.update_ids:
            raise ProtocolError(
                f"a commit of version {fact.version} with {len(fact.update_ids)} updates does not fit "
                f"version {self._version} with {len(self._entries)} updates in the buffer"
            )
        if not (0.0 < fact.normaliser < math.inf and 0.0 < fact.step < math.inf and math.isfinite(fact.memory)):
            raise ProtocolError(
                f"the commit of version {fact.version} has normaliser {fact.normaliser}, step {fact.step} and memory "
                f"{fact.memory}"
            )
        # of a time-boxed site the weight is less by as much as its delta is longer
        times = {e.update_id: float(e.effort.steps) for e in self._entries} if self._spec.local.time_boxed else {}
        factors = by_site(fact, self._memory, times=times)
        self._influence.on_committed(factors, updates=len(self._entries))
        self._memory.apply(fact)
        if fact.rule:
            self._rule, self._rule_reason = fact.rule, fact.rule_reason
        self._last_step = fact.step
        self._version = fact.version
        self._entries = []
        self._attendance.on_committed()
        self._first_at = None
        self._began_at = fact.at

    def _say(self, num_examples: int) -> float:
        """What so many examples weigh by the job's rule among the sites that are there."""
        power, ratio = self._spec.num_examples_power, self._spec.num_examples_ratio
        fewest = self._sites.fewest_examples(num_examples, power=power, most_ratio=ratio)
        return examples_say(self._spec, num_examples, fewest=fewest)

    def _check_new(self, update_id: UpdateId) -> None:
        if update_id in self._seen:
            raise ProtocolError(f"update {update_id} was decided before")

    # -------------------------------------------------------------- rules

    def _fold(self, arrival: Arrival, *, now: float) -> Folded:
        site = arrival.update_id.site
        stats, peers = self.site_stats(site), self.peers(site)
        staleness = self._version - arrival.base_version
        examples = peers.believed_examples(arrival.effort.num_examples)
        evidence = Evidence(
            num_examples=examples,
            staleness=staleness,
            site=stats,
            active=len(self.active),
            fewest_examples=self._sites.fewest_examples(
                examples, power=self._spec.num_examples_power, most_ratio=self._spec.num_examples_ratio
            ),
            slot=self._memory.buffer.get(site),
            remembered=self._memory.sites.get(site),
            rule=self._rule,
            steps=arrival.effort.steps,
        )
        share = self._strategy.share(evidence)
        limit = guards.soft_limit(active=len(self.active), size=self._strategy.size(len(self.active)))
        away = staleness > limit
        return Folded(
            update_id=arrival.update_id,
            base_version=arrival.base_version,
            num_examples=examples,
            staleness=staleness,
            weight=share.weight,
            clip=self._clip(arrival, peers, away=away),
            norm=arrival.norm,
            at=now,
            effort=arrival.effort,
            also=share.also,
            rebase=self._version - limit if away else None,
            values_norm=arrival.values_norm,
        )

    def _clip(self, arrival: Arrival, peers: Peers, *, away: bool) -> float:
        """The tightest of the guards that the job has; of a site that was `away`, also that for returners."""
        site, norm = arrival.update_id.site, arrival.norm
        own, usual = self.site_stats(site), self._sites.active_norm(site, least=guards.OTHERS)
        return min(
            guards.clip_to_norm(norm, peers.longest(arrival.scale)),
            own.clip(norm, factor=self._spec.clip_to_own_median),
            guards.clip_to_others(norm, usual, factor=self._spec.clip_to_buffer),
            guards.clip_of_returner(norm, own.usual_norm, self._sites.active_norm(site, least=1)) if away else 1.0,
        )

    def _plan(self, *, now: float, reason: str | None) -> tuple[str, Plan]:
        """Why a version is made of the buffer, and what it is made of, before any site is left out."""
        why = self.commit_due(now=now) or reason
        if not self._entries or why is None or self.kept_back:
            raise ProtocolError(f"version {self._version + 1} is not due: {self.waiting_for()}")
        return why, self._strategy.plan(self._view())

    @property
    def _compares(self) -> bool:
        return self._spec.robust is not None and self._spec.robust.kind == "multi_krum"

    def _compared(self, plan: Plan) -> Combination | None:
        """The deltas of a plan that multi-Krum chooses from."""
        found = plan.combination
        return found if self._compares and found is not None and found.terms else None

    def _decide(self, *, now: float, reason: str | None, gram: Matrix | None) -> Committed:
        why, plan = self._plan(now=now, reason=reason)
        normaliser, combination = plan.normaliser, plan.combination
        if (compared := self._compared(plan)) is not None:
            if gram is None:
                raise ProtocolError(f"version {self._version + 1} needs the inner products of the deltas in its buffer")
            normaliser, combination = believed(compared, self._entries, gram, f=compared.trim)
        return Committed(
            version=self._version + 1,
            update_ids=self.buffer,
            normaliser=normaliser,
            reason=why,
            at=now,
            step=step_of(
                self._spec,
                self._entries,
                self.all_stats,
                active=self.active,
                size=self._strategy.size(len(self.active)),
                before=self._last_step,
                remembers=plan.remembers,
            ),
            memory=plan.memory,
            corrections=plan.corrections,
            remembers=plan.remembers,
            rule=plan.rule,
            rule_reason=plan.rule_reason,
            combination=combination,
            values=self._values(combination, now=now),
            values_trim=self._values_trim(),
            sums_anew=self._sums_anew(plan),
        )

    def _values(self, combination: Combination | None, *, now: float) -> tuple[Term, ...]:
        """Whose values the next version takes; none when the buffer brings no new ones."""
        if all(entry.values_norm is None for entry in self._entries):
            return ()
        terms = newest_values(
            self._memory.last,
            self.all_stats,
            version=self._version,
            now=now,
            power=self._spec.num_examples_power,
            most_ratio=self._spec.num_examples_ratio,
        )
        excluded = combination.excluded if combination is not None else ()
        return tuple(term for term in terms if term.update_id.site not in excluded)

    def _values_trim(self) -> int:
        """A robust rule that looks at coordinates does so here too; multi-Krum has left sites out."""
        robust = self._spec.robust
        if robust is None or robust.kind == "multi_krum":
            return 0
        return robust.f if robust.kind == "trimmed_mean" else len(self._memory.last)

    def _sums_anew(self, plan: Plan) -> tuple[Term, ...]:
        """All that is remembered after this commit, every SUMS_ANEW versions."""
        if not plan.remembers or (self._version + 1) % SUMS_ANEW:
            return ()
        return self._memory.after(corrections=plan.corrections)

    def _view(self) -> Buffer:
        return Buffer(
            entries=self._entries,
            sites=self._attendance.contributed,
            active=self.active,
            awaited=self._attendance.awaited,
            first_at=self._first_at,
            began_at=self._began_at,
            version=self._version,
            stats=self.all_stats,
            memory=self._memory,
            rule=self._rule,
            arrival_gap_s=self._sites.arrival_gap_s,
        )
