"""`deploy/release-check`: what must hold before a release, and what goes with it.

0 all of it holds   1 something does not   2 wrong usage   3 nobody could be asked for advisories: not audited
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from supply import hashes, sbom, secret_scan
from supply.advisories import SOURCE, NotAuditedError, advisories
from supply.packages import ROOT, RUN_TIME, closure

DEPLOY = ROOT / "deploy"
FAILED, NOT_AUDITED = 1, 3


def check_hashes(options: argparse.Namespace) -> int:
    """Compare constraints and hashes; with --write, ask the package index and write both files."""
    pins = hashes.pinned(DEPLOY / "constraints.txt")
    if options.write:
        hashes.write(DEPLOY, hashes.ask_index(pins))
    problems = hashes.differences(pins, known_hashes())
    if options.index:
        there = hashes.ask_index(pins)
        others = [name for name, one in known_hashes().items() if there.get(name) != one]
        problems += [f"{name}: the index has another file" for name in others]
    return report("hashes", problems, f"every pinned package but torch has the hash of its file ({len(pins) - 1})")


def known_hashes() -> dict[str, tuple[str, str]]:
    """Of both files."""
    return {**hashes.read(DEPLOY / "hashes.txt"), **hashes.read(DEPLOY / "hashes-test.txt")}


def write_sbom(options: argparse.Namespace) -> int:
    """Write the bill of materials; a failure when an installed version is not the pinned one."""
    pins = hashes.pinned(DEPLOY / "constraints.txt")
    problems = [
        f"{name} {package.version} is installed, constraints.txt has {pins.get(name, 'nothing')}"
        for name, package in closure(RUN_TIME).items()
        if name not in hashes.OWN_BUILD and pins.get(name) != package.version
    ]
    count = sbom.write(options.to, known_hashes(), wheel=options.wheel)
    return report("sbom", problems, f"{count} components in {options.to}")


def find_secrets(options: argparse.Namespace) -> int:
    """Look for keys, passwords and tokens in these files, or in all that git has or would add."""
    files = [file.absolute() for file in options.files] or secret_scan.tracked(ROOT)
    found = list(map(str, secret_scan.scan(files, root=ROOT)))
    return report("secrets", found, f"none in {len(files)} files")


def audit(options: argparse.Namespace) -> int:
    """Ask for advisories against all pinned versions."""
    pins = hashes.pinned(DEPLOY / "constraints.txt")
    try:
        found = advisories(pins, source=options.source)
    except NotAuditedError as exc:
        print(f"NOT AUDITED  advisories: {exc}. This is no all-clear: ask again from where a source can be reached")
        return NOT_AUDITED
    problems = [f"{name}: {', '.join(ids)}" for name, ids in found.items()]
    return report("advisories", problems, f"none is known against {len(pins)} packages")


def report(check: str, problems: list[str], fine: str) -> int:
    """Print how a check went; its exit code."""
    print(f"{'FAILED' if problems else 'ok'}  {check}{'' if problems else f': {fine}'}")
    for problem in problems:
        print(f"  {problem}")
    return FAILED if problems else 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="deploy/release-check", description=(__doc__ or "").partition("\n")[0])
    commands = made.add_subparsers(required=True)
    command = commands.add_parser("hashes", help=check_hashes.__doc__)
    command.add_argument("--write", action="store_true", help="ask the package index and write them anew")
    command.add_argument("--index", action="store_true", help="ask the package index whether it has the same files")
    command.set_defaults(run=check_hashes)
    command = commands.add_parser("sbom", help=write_sbom.__doc__)
    command.add_argument("--to", type=Path, required=True, metavar="FILE.cdx.json")
    command.add_argument("--wheel", type=Path, help="the wheel of fedbus that is released")
    command.set_defaults(run=write_sbom)
    command = commands.add_parser("secrets", help=find_secrets.__doc__)
    command.add_argument("files", nargs="*", type=Path)
    command.set_defaults(run=find_secrets)
    command = commands.add_parser("advisories", help=audit.__doc__)
    command.add_argument("--source", default=SOURCE, help="an OSV server")
    command.set_defaults(run=audit)
    return made


if __name__ == "__main__":
    chosen = parser().parse_args()
    sys.exit(chosen.run(chosen))
