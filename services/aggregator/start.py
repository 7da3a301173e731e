"""From flags to a running aggregator to an exit code."""

from __future__ import annotations

import sys

from fedbus.errors import SettingsError
from fedbus.runtime.lifecycle import run_daemon
from fedbus.runtime.logging import configure_logging
from fedbus.runtime.printable import printable_lines
from services.aggregator.settings import AggregatorSettings


def start(**flags: object) -> int:
    """Run the aggregator daemon until a signal; flags that are None were not given."""
    try:
        settings = AggregatorSettings.load(**flags)
    except SettingsError as exc:
        print(f"fedbus aggregator: {printable_lines(exc)}", file=sys.stderr)
        return 2
    configure_logging(settings.log_level, settings.log_format)
    from services.aggregator.daemon import run_aggregator

    return run_daemon(lambda stop: run_aggregator(settings, stop))
