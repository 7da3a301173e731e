"""What only a site has: the hospital's policy, the cage around its tasks, the folder of its data."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from fedbus.doctor.finding import Area, Finding, Reporter
from fedbus.errors import PolicyError
from fedbus.runtime.cage import trouble
from fedbus.site.policy_file import read_policy
from fedbus.site.settings import SiteSettings

POLICY = Reporter(Area.CONFIG, "policy")
CAGE = Reporter(Area.MACHINE, "cage")
DATA = Reporter(Area.TASKS, "data")
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def examine_policy(path: Path | None) -> Finding:
    """Whether the hospital's policy can be read: with one that cannot, the site takes part in nothing."""
    if path is None:
        return POLICY.skipped("no policy: the settings alone decide what may run")
    try:
        read = read_policy(path)
    except PolicyError as exc:
        return POLICY.fail(f"with this policy the site takes part in nothing: {exc}", f"correct {path}")
    if path.stat().st_mode & OTHERS_WRITE:
        return POLICY.warn(f"others than its owner may change {path}", f"chmod go-w {path}")
    return POLICY.ok(f"{path.name} is whole (digest {read.digest})")


def examine_cage(settings: SiteSettings) -> Finding:
    """Whether this kernel can keep the site's key from its tasks; a daemon that cannot does not start."""
    wanted = settings.trainer_cage if settings.trainer_cage is not None else settings.kit is not None
    if not wanted:
        return CAGE.skipped("tasks are kept from nothing: there is no kit, or trainer_cage is false")
    if why := trouble():
        return CAGE.fail(why, "take a kernel with Landlock, or set trainer_cage = false: tasks can then read the key")
    return CAGE.ok("tasks cannot read the site's key")


def examine_data(folder: Path) -> Iterator[Finding]:
    """Whether there is anything to train on, and this user may read it."""
    try:
        there = folder.is_dir() and any(True for _ in folder.iterdir())
    except OSError as exc:
        yield DATA.fail(f"{folder} cannot be read: {exc.strerror}", "let the daemon's user read it")
        return
    if there:
        yield DATA.ok(f"{folder} holds something")
    else:
        yield DATA.fail(f"{folder} is missing or empty", "mount it, or correct site_data")
