"""`python -m services.aggregator`: settings from FEDBUS_* and the TOML file."""

from fedbus.runtime.process import run_process


def main() -> int:
    """Run the daemon; imported here, so that Ctrl-C is heard from the first moment on."""
    from fedbus.aggregator.start import start
    from fedbus.cli.names import check_names
    from fedbus.web.beside import page_beside

    check_names()
    return start(page=page_beside)


run_process(main)
