"""`deploy/docs-site`: what `fedbus web` serves under /docs, the page of all settings, the pictures.

deploy/docs-site build [--to build/docs]                   the pages; needs the extra `docs`, and no network
deploy/docs-site settings > deploy/docs/settings.md        every setting of every daemon
deploy/docs-site pictures                                  deploy/docs/aggregation-*.svg
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pages import pictures, settings, site


def main() -> int:
    """Run one of them; 1 where a link leads nowhere or the extra is missing."""
    parser = argparse.ArgumentParser(prog="deploy/docs-site", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True, dest="command")
    build = commands.add_parser("build", help="Build the pages into a folder.")
    build.add_argument("--to", type=Path, default=site.ROOT / "build" / "docs", metavar="DIR")
    commands.add_parser("settings", help="Print the page of all settings.")
    commands.add_parser("pictures", help="Draw the pictures of deploy/docs/aggregation.md.")
    options = parser.parse_args()
    if options.command == "settings":
        print(settings.page(), end="")
        return 0
    if options.command == "pictures":
        pictures.write()
        return 0
    return site.build(options.to.absolute())


sys.exit(main())
