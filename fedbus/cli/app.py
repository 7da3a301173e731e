"""Where `fedbus` begins. The commands are imported by `main`, so that Ctrl-C is heard from the first moment on."""

from __future__ import annotations

from fedbus.runtime.process import run_process


def main() -> None:
    """Run the command line and leave with its exit code, see `runtime.process`."""
    run_process(_commands)


def _commands() -> None:
    from fedbus.cli.commands import app

    app()
