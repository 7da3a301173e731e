"""`deploy/docs-site`: what `fedbus web` serves under /docs, and the page of all settings.

deploy/docs-site build [--to build/docs]                   the pages; needs the extra `docs`, and no network
deploy/docs-site settings > deploy/docs/settings.md        every setting of every daemon
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pages import settings, site


def main() -> int:
    """Run one of both; 1 where a link leads nowhere or the extra is missing."""
    parser = argparse.ArgumentParser(prog="deploy/docs-site", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True, dest="command")
    build = commands.add_parser("build", help="Build the pages into a folder.")
    build.add_argument("--to", type=Path, default=site.ROOT / "build" / "docs", metavar="DIR")
    commands.add_parser("settings", help="Print the page of all settings.")
    options = parser.parse_args()
    if options.command == "settings":
        print(settings.page(), end="")
        return 0
    return site.build(options.to.absolute())


sys.exit(main())
