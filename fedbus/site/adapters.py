"""What a site daemon works with, opened in order: signals, lock, rules, audit log, source, three links, the door."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedbus.audit.writer import AuditWriter
from fedbus.bus.connection import Session
from fedbus.bus.post import SEAL_KEY, Post
from fedbus.bus.url import BrokerUrl
from fedbus.core.job.policy import SitePolicy
from fedbus.errors import SettingsError
from fedbus.runtime.allocator import keep_freed_chunks
from fedbus.runtime.metrics import Of
from fedbus.runtime.telemetry import Telemetry, telemetry_of
from fedbus.site.audit import JobLines, logins, open_audit
from fedbus.site.cage import source_cage
from fedbus.site.door import Door
from fedbus.site.labels import Labels
from fedbus.site.rules import SiteRules
from fedbus.site.rules_watch import RulesWatch
from fedbus.site.settings import SiteSettings
from fedbus.site.source_watch import SourceWatch
from fedbus.site.stopping import check_not_stopped, hear_the_plug
from fedbus.sources.journal import JournalFile
from fedbus.store.files import make_folder
from fedbus.store.lock import StateLock
from fedbus.training.registry import task_names

if TYPE_CHECKING:
    from fedbus.trust.identity import Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSource:
    """Where the site's labels come from, and what has come."""

    labels: Labels
    watch: SourceWatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapters:
    """Of one site. `control` brings what it is told, `models` the global models; what it says goes through `door`.

    identity: None for a site that logs in by password. rules_watch: None without a policy's file. source: None where
    people put the data there. try_again: set by SIGUSR1. links: all sessions.
    """

    identity: Identity | None
    post: Post
    rules: SiteRules
    rules_watch: RulesWatch | None
    audit: AuditWriter
    lines: JobLines
    source: LabelSource | None
    control: Session
    models: Session
    door: Door
    try_again: asyncio.Event
    telemetry: Telemetry
    links: tuple[Session, ...]


@asynccontextmanager
async def open_adapters(settings: SiteSettings, *, session: str) -> AsyncIterator[Adapters]:
    """Open them, and close them in the opposite order; `session` is the daemon's.

    Raises SettingsError, StoreError, TrustError and what a Session raises.
    """
    name, floor, try_again = settings.site_name, _floor(settings), asyncio.Event()
    url, identity = settings.url_for(name), settings.identity()
    _check_login(name, url, identity)
    # before the lock, by which `fedbus retry` finds us: unheard, the signal would end the process
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, try_again.set)
    hear_the_plug()
    async with AsyncExitStack() as stack:
        stack.enter_context(StateLock(make_folder(settings.state_dir)))
        check_not_stopped(settings.state_dir, name)  # behind the lock, by which `fedbus site stop` finds us
        if identity is not None:
            keep_freed_chunks()
        telemetry = telemetry_of(Of.SITE, name, port=settings.metrics_port)
        stack.callback(telemetry.tracing.close)
        post = Post(identity, seal_key=settings.state_dir / SEAL_KEY, trace=telemetry.tracing.newest)
        rules = SiteRules(floor, settings.policy_path, state=settings.state_dir, now=time.time)
        rules_watch = RulesWatch(rules) if rules.are_written else None
        # before anything is said to anybody: without it nothing leaves
        audit = await stack.enter_async_context(open_audit(settings, rules, identity, session=session))
        source = _source(settings)

        async def link(what: str, follows: Session | None = None) -> Session:
            return await stack.enter_async_context(
                Session(
                    url,
                    name=f"{name}/{what}",
                    identity=identity,
                    outgoing=post.outgoing,
                    retry_login=True,
                    follows=follows,
                    on_state=logins(audit, f"{name}/{what}", url, identity),
                )
            )

        control = await link("control")
        updates = await link("updates", control)
        models = await link("models", control)
        door = Door(name, post=post, control=control, bulk=updates, audit=audit, rules=rules)
        stack.callback(door.close)
        yield Adapters(
            identity=identity,
            post=post,
            rules=rules,
            rules_watch=rules_watch,
            audit=audit,
            lines=JobLines(audit, rules),
            source=source,
            control=control,
            models=models,
            door=door,
            try_again=try_again,
            telemetry=telemetry,
            links=(control, updates, models),
        )


def _floor(settings: SiteSettings) -> SitePolicy:
    """What the settings allow; a hospital's policy can only take away from it."""
    installed = frozenset(task_names())
    unknown = sorted(set(settings.tasks or ()) - installed)
    if unknown:
        raise SettingsError(
            f"tasks: {', '.join(unknown)} not installed here; installed: {', '.join(sorted(installed)) or 'none'}"
        )
    return SitePolicy(
        site=settings.site_name,
        installed_tasks=installed,
        allowed_tasks=None if settings.tasks is None else frozenset(settings.tasks),
        min_batch_size=settings.min_batch_size,
        min_contributors=settings.min_contributors,
        data_tags=settings.data_tags or (),
    )


def _check_login(name: str, url: str, identity: Identity | None) -> None:
    login = BrokerUrl.parse(url).user if identity is None else identity.name
    if login != name:
        whose = "the broker URL's login" if identity is None else f"the certificate's name in {identity.kit}"
        raise SettingsError(
            f"site {name!r} must log in under its own name, {whose} is {login!r}: correct --name or "
            f"{'FEDBUS_BROKER_URL' if identity is None else 'FEDBUS_KIT'}"
        )


def _source(settings: SiteSettings) -> LabelSource | None:
    if settings.source is None:
        return None
    state, data = settings.state_dir / "source", settings.site_data.resolve()
    labels = Labels(JournalFile(state), data=data, min_count=settings.source.min_count)
    watch = SourceWatch(settings.source, data=data, state=state.resolve(), labels=labels, cage=source_cage(settings))
    return LabelSource(labels=labels, watch=watch)
