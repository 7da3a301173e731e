"""Who may read a job's model log from which version on: its epochs, and the sites that have their keys.

A new epoch begins with the next version after a site that has the newest key is out: it left, declined, was left out
or revoked. Where earlier versions are not for joiners one begins with each site that comes, too, and with a snapshot.
Keys are durable before anything is sealed with them, so that a restart goes on in the same epoch; who has them is not:
until it is known again, every site that ever took part is taken to have the newest.

There are no more keys than versions, however often sites come and go: one that nothing was sealed with is let go when
the next epoch begins. And a snapshot comes before there are more than a site can be given.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fedbus.aggregator.workers import Worker
from fedbus.store.ledger import Ledger
from fedbus.store.ledger_schema import ANYBODY
from fedbus.trust.epochs import MOST_EPOCHS, EpochKey, seal_keys
from fedbus.trust.sealing import PublicKey

SealKeyOf = Callable[[str], PublicKey]
"""What is sealed to a site goes to this key. Raises SealError when it has announced none."""


class Epochs:
    """Of one job. `anew_for_joiners`: earlier versions are not for a site that comes."""

    def __init__(
        self,
        job: str,
        *,
        federation: str,
        ledger: Ledger,
        store: Worker,
        seal_key_of: SealKeyOf,
        anew_for_joiners: bool = False,
    ) -> None:
        self.published = -1
        """A version that is in the log; -1: none."""
        self._job = job
        self._federation = federation
        self._ledger = ledger
        self._store = store
        self._seal_key_of = seal_key_of
        self._anew = anew_for_joiners
        self._keys: list[EpochKey] = []
        self._begins_at = 0
        """The epoch from which on a site is given keys: an earlier one is of no use to it, or not for it."""
        self._members: set[str] = set()
        self._have_newest: set[str] = set()
        self._used = self._told = False
        """Whether something was sealed in the newest epoch, and whether its key is on the way to all members."""

    async def open(self, tell: Callable[[], Awaitable[None]]) -> None:
        """Go on where the ledger says. `tell` gives every member the keys, before a new epoch is used."""
        self._tell = tell
        rows = await self._store(self._ledger.trust.epochs, self._job)
        self._keys = [EpochKey(number=number, key=key) for number, key, _ in rows]
        self._begins_at = max((number for number, _, fresh in rows if fresh), default=0)
        self._have_newest = set(await self._store(self._ledger.participants, self._job)) - {ANYBODY}
        self.published = await self._store(self._ledger.last_published, self._job)
        self._used = self._told = bool(self._keys)
        if not self._keys:
            await self._begin(fresh=True)

    @property
    def newest(self) -> EpochKey:
        return self._keys[-1]

    def is_member(self, site: str) -> bool:
        """Whether the site is given keys."""
        return site in self._members

    async def let_in(self, site: str) -> bool:
        """A site may read from now on. True: what it may read begins with a snapshot, which is to be published."""
        joins = site not in self._members
        self._members.add(site)
        if not (joins and self._anew and (self._used or self._begins_at < self.newest.number)):
            return False
        await self._begin(fresh=True)
        return True

    async def out(self, site: str) -> None:
        """A site reads no later version."""
        self._members.discard(site)
        if site in self._have_newest:
            await self._begin(fresh=False)

    def keys_for(self, site: str) -> str:
        """The keys that a member is given, sealed to it. Raises SealError when it cannot be."""
        keys = [key for key in self._keys if key.number >= self._begins_at]
        text = seal_keys(keys, self._seal_key_of(site), federation=self._federation, job=self._job, site=site)
        self._have_newest.add(site)
        return text

    async def for_version(self) -> EpochKey:
        """The epoch of the version that is written now: one for all its parts."""
        while not self._told:
            self._told = True
            await self._tell()
        self._used = True
        return self.newest

    def written(self, version: int, epoch: EpochKey, *, snapshot: bool) -> None:
        """A version is in the log, sealed in this epoch; who begins with its snapshot needs no earlier one."""
        self.published = max(self.published, version)
        if snapshot:
            self._begins_at = max(self._begins_at, epoch.number)

    @property
    def want_snapshot(self) -> bool:
        """Whether there are soon more keys than a site can be given: what begins with a snapshot needs no earlier."""
        return sum(key.number >= self._begins_at for key in self._keys) >= MOST_EPOCHS // 2

    async def _begin(self, *, fresh: bool) -> None:
        before = self.newest if self._keys else None
        unused = before if before is not None and not self._used else None
        fresh = fresh or (unused is not None and unused.number == self._begins_at)
        key = EpochKey.make(0 if before is None else before.number + 1)
        instead_of = None if unused is None else unused.number
        keep = self._ledger.trust.add_epoch
        await self._store(keep, self._job, key.number, key.key, fresh=fresh, instead_of=instead_of)
        self._keys = [each for each in self._keys if each is not unused] + [key]
        self._have_newest = set()
        self._used = self._told = False
        if fresh:
            self._begins_at = key.number
