"""`python -m services.site`: settings from FEDBUS_* and the TOML file."""

from fedbus.runtime.process import run_process


def main() -> int:
    """Run the daemon; imported here, so that Ctrl-C is heard from the first moment on."""
    from fedbus.cli.names import check_names
    from fedbus.site.start import start

    check_names()
    return start()


run_process(main)
