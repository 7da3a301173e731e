"""`deploy/hashes.txt` and `deploy/hashes-test.txt`: the SHA-256 of the very file of every package.

pip compares it with what it downloads (`--require-hashes`), whichever index or mirror that came from. The files are
those of PyPI for the machine and the Python that the tests run on: x86_64, Python 3.11. torch is in neither file: its
builds (CPU, CUDA, from several indexes) differ, so it is installed first and by itself, from the index that you trust.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from supply.packages import RUN_TIME, canonical, closure

OWN_BUILD = frozenset({"torch", "fedbus"})
BUILD = frozenset({"hatchling", "editables", "packaging", "pathspec", "pluggy", "trove-classifiers"})
"""What it takes to install a checkout of fedbus itself, with --no-build-isolation."""
HEAD = """\
# The files that a release was tested with, by their SHA-256: CPython {python} on {machine}. Written by
# `deploy/release-check hashes --write`; `deploy/setup --require-hashes` installs these and no others. Not in it: torch.
"""


def pinned(constraints: Path) -> dict[str, str]:
    """Versions by canonical name."""
    lines = [line.strip() for line in constraints.read_text().splitlines()]
    pairs = [line.split("==", 1) for line in lines if line and not line.startswith("#")]
    return {canonical(name): version for name, version in pairs}


def read(path: Path) -> dict[str, tuple[str, str]]:
    """Version and SHA-256 by canonical name."""
    found = re.findall(r"^([^\s=#]+)==(\S+) --hash=sha256:([0-9a-f]{64})$", path.read_text(), re.MULTILINE)
    return {canonical(name): (version, digest) for name, version, digest in found}


def differences(pins: Mapping[str, str], known: Mapping[str, tuple[str, str]]) -> list[str]:
    """What the constraints and the files of hashes say differently."""
    wanted = {name: version for name, version in pins.items() if name not in OWN_BUILD}
    stale = [
        f"{name}: constraints.txt has {version}, the hashes have {known[name][0]}"
        for name, version in wanted.items()
        if name in known and known[name][0] != version
    ]
    missing = [f"{name}=={version}: its file has no hash" for name, version in wanted.items() if name not in known]
    return [*stale, *missing, *(f"{name}: no longer in constraints.txt" for name in known if name not in wanted)]


def ask_index(pins: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """What pip would install of these versions here, and nothing of it is installed. Needs a package index."""
    wanted = [f"{name}=={version}" for name, version in pins.items() if name not in OWN_BUILD]
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps", "--quiet"]
    done = subprocess.run([*command, "--report", "-", *wanted], stdout=subprocess.PIPE, check=False, text=True)
    if done.returncode:
        raise SystemExit("pip could not find all files: is a package index reachable?")
    found = {}
    for item in json.loads(done.stdout)["install"]:
        about, origin = item["metadata"], item["download_info"]
        found[canonical(about["name"])] = (about["version"], origin["archive_info"]["hashes"]["sha256"])
    return found


def write(folder: Path, found: Mapping[str, tuple[str, str]]) -> None:
    """Write both files."""
    needed = set(closure(RUN_TIME)) | BUILD
    head = HEAD.format(python=f"{sys.version_info[0]}.{sys.version_info[1]}", machine="x86_64")
    for file, names in (("hashes.txt", needed & set(found)), ("hashes-test.txt", set(found) - needed)):
        lines = [f"{name}=={found[name][0]} --hash=sha256:{found[name][1]}\n" for name in sorted(names)]
        (folder / file).write_text(head + "".join(lines))
