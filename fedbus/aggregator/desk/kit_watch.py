"""The aggregator's kit, looked at every few seconds: what `fedbus provision` changes there while jobs run.

    crl.pem, ca.pem      whom this process believes from now on; a list past half its time is warned of
    roster.json          a site that was revoked is put out, and every job that it concerns is told, once
    renewed/NAME.pem     a renewed certificate: its site gets it in a control message, at once or when it joins, and
                         with it ca.pem and endorsement.pem, by which it knows another CA of the federation
    cert.pem             this process's own, renewed

Each site that is there gets crl.pem when it has changed: it believes no revoked aggregator or submitter then.

Nothing here decides who is let in: the broker does, and the signatures' check. A file that cannot be read changes
nothing, and is said.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import structlog

from fedbus.aggregator.desk.site_desk import SiteDesk
from fedbus.aggregator.desk.views import NEWEST_INCIDENTS
from fedbus.aggregator.job.jobs import Jobs
from fedbus.aggregator.tools import Tools
from fedbus.core.job.membership import SiteState
from fedbus.core.protocol import events
from fedbus.core.protocol import messages as m
from fedbus.errors import TrustError
from fedbus.store.audit_kinds import Kind
from fedbus.trust.identity import REVOKED, Identity, Verifier
from fedbus.trust.renewal import ListLife, renewed_for
from fedbus.trust.roster import ROSTER, Roster

LOOK_EVERY_S = 3.0
RENEWED, ENDORSEMENT = "renewed", "endorsement.pem"
MAX_PEM_BYTES = 64 * 1024
MAX_HANDED_LISTS_BYTES = 1 << 20
"""Some 20,000 certificates that were revoked."""
WATCHED = ("cert.pem", "ca.pem", REVOKED, ROSTER, ENDORSEMENT)

log = structlog.get_logger()

Believe = Callable[[Identity, Verifier], None]
Stamps = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KitContent:
    """What the kit says now. `renewed`: what is handed to each site; `lists`: to all."""

    identity: Identity
    verifier: Verifier
    roster: Roster | None
    life: ListLife | None
    renewed: dict[str, m.CertificateRenewed] = field(default_factory=dict)
    lists: m.RevocationLists | None = None


class KitWatch:
    """`believe` is told at each change who this process is and whom it believes; `wall`: seconds since the epoch."""

    def __init__(
        self,
        identity: Identity,
        *,
        tools: Tools,
        jobs: Jobs,
        sites: SiteDesk,
        believe: Believe,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._kit = identity.kit
        self._role = identity.role
        self._tools = tools
        self._jobs = jobs
        self._sites = sites
        self._believe = believe
        self._wall = wall
        self._stamps: Stamps | None = None
        self._content: KitContent | None = None
        self._told: set[tuple[str, ...]] = set()
        self._sent: dict[str, tuple[str, m.CertificateRenewed]] = {}
        self._sent_lists: dict[str, tuple[str, m.RevocationLists]] = {}

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Do what has become due since the last look."""
        first = self._stamps is None
        await self._read()
        if self._content is None:
            return
        if self._content.roster is not None:
            for site, since in sorted(self._content.roster.revoked.items()):
                await self._put_out(site, since, first=first)
        if self._content.life is not None:
            await self._warn_of_list(self._content.life)
        self._hand_out(self._content.renewed)
        self._hand_out_lists(self._content.lists)

    # -------------------------------------------------------------- the files

    async def _read(self) -> None:
        stamps = await asyncio.to_thread(_stamps, self._kit)
        if stamps == self._stamps:
            return
        self._note_change(stamps)
        self._stamps = stamps
        try:
            self._content = await asyncio.to_thread(self._load)
        except TrustError as exc:
            log.error("kit", text=f"{exc}; what was known before counts on")
            return
        self._believe(self._content.identity, self._content.verifier)

    def _note_change(self, stamps: Stamps) -> None:
        if self._stamps is not None:
            files = sorted({name for name, *_ in set(stamps) ^ set(self._stamps)})
            self._tools.audit.note(Kind.KIT_CHANGED, files=files)

    def _load(self) -> KitContent:
        identity, at = Identity.load(self._kit, role=self._role), self._now()
        verifier = identity.verifier()
        return KitContent(
            identity=identity,
            verifier=verifier,
            roster=Roster.load(self._kit) if (self._kit / ROSTER).exists() else None,
            life=ListLife.of_kit(self._kit),
            renewed=dict(self._renewed(verifier, at)),
            lists=_lists(self._kit),
        )

    def _renewed(self, verifier: Verifier, at: datetime) -> Iterator[tuple[str, m.CertificateRenewed]]:
        authorities, endorsement = (_text(self._kit / name) for name in ("ca.pem", ENDORSEMENT))
        for path in sorted((self._kit / RENEWED).glob("*.pem")):
            try:
                pem = _text(path)
                name = renewed_for(pem.encode(), verifier, at=at)
                if name != path.stem:
                    raise TrustError(f"it is the certificate of {name}")
            except TrustError as exc:
                log.error("kit", text=f"{path} is handed to nobody: {exc}")
                continue
            handed = m.CertificateRenewed(site=name, certificate=pem, authorities=authorities, endorsement=endorsement)
            yield name, handed

    # -------------------------------------------------------------- what follows

    async def _put_out(self, site: str, since: datetime, *, first: bool) -> None:
        """Also of what was revoked while this process did not run; a job is told once in its life."""
        revoked = events.SiteRevoked(site=site, since=_iso(since))
        await self._sites.put_out(site, f"its certificate was revoked at {revoked.since}")
        concerned = [r.job for r in self._jobs.runners.values() if r.row.submitted_at <= since.timestamp()]
        if first and not concerned:
            self._told.add((events.NOBODY, site, revoked.since))
        for job in concerned or [events.NOBODY]:
            if (job, site, revoked.since) in self._told:
                continue
            self._told.add((job, site, revoked.since))
            kept = await self._tools.compute(self._tools.ledger.incidents, job, newest=NEWEST_INCIDENTS)
            if revoked.text not in (text for _, _, text in kept):
                await self._tools.announcer.event(job, revoked)

    async def _warn_of_list(self, life: ListLife) -> None:
        now = self._now()
        if now < life.half_time:
            return
        old = events.RevocationListOld(ends=_iso(life.ends), over=now >= life.ends)
        key = (old.kind, old.ends, str(old.over))
        if key in self._told:
            return
        self._told.add(key)
        for job in list(self._jobs.runners) or [events.NOBODY]:
            await self._tools.announcer.event(job, old)

    def _hand_out(self, renewed: dict[str, m.CertificateRenewed]) -> None:
        """To each session of a site once: it may have been away, or its kit copied back from a backup."""
        for view in self._tools.membership.views():
            handed = renewed.get(view.name)
            online = view.state is SiteState.ONLINE
            if handed is None or not online or self._sent.get(view.name) == (view.session, handed):
                continue
            self._sent[view.name] = (view.session, handed)
            log.info("certificate-sent", site=view.name)
            self._tools.announcer.answer(view.name, handed)

    def _hand_out_lists(self, lists: m.RevocationLists | None) -> None:
        for view in self._tools.membership.views():
            online = view.state is SiteState.ONLINE
            if lists is None or not online or self._sent_lists.get(view.name) == (view.session, lists):
                continue
            self._sent_lists[view.name] = (view.session, lists)
            self._tools.announcer.answer(view.name, lists)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._wall(), UTC)


def _stamps(kit: Path) -> Stamps:
    """What tells one state of the watched files from another."""
    paths = [*(kit / name for name in WATCHED), *sorted((kit / RENEWED).glob("*.pem"))]
    found = []
    for path in paths:
        try:
            stat = path.stat()
        except OSError:
            continue
        found.append((path.name, stat.st_ino, stat.st_mtime_ns, stat.st_size))
    return tuple(found)


def _lists(kit: Path) -> m.RevocationLists | None:
    """Those of the kit as they are handed to sites; None without any, or with more than a message should hold."""
    text = _text(kit / REVOKED, MAX_HANDED_LISTS_BYTES + 1)
    if len(text) > MAX_HANDED_LISTS_BYTES:
        log.error("kit", text=f"{kit / REVOKED} is handed to no site: more than {MAX_HANDED_LISTS_BYTES:,} bytes")
        return None
    return m.RevocationLists(lists=text) if text else None


def _text(path: Path, most_bytes: int = MAX_PEM_BYTES) -> str:
    """A file of PEM, empty when there is none. Raises TrustError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(most_bytes).decode("ascii")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as exc:
        raise TrustError(f"{path} cannot be read ({exc})") from exc


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds")
