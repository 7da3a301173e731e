"""`fedbus web`: the status page in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedbus.cli.jobs import BrokerUrl, Kit


def web(
    host: Annotated[
        str | None,
        typer.Option(help="Address to listen on; others than loopback ask who it is.", show_default="127.0.0.1"),
    ] = None,
    port: Annotated[int | None, typer.Option(help="0: a free one, which is printed.", show_default="8765")] = None,
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File with the word that lets somebody in.", show_default="none")
    ] = None,
    proxy_header: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Header in which a proxy says who has signed in, X-Forwarded-User say.",
            show_default="none",
        ),
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NETWORK", help="From where that header is believed; may be repeated.", show_default="none"
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(
            "--name", help="Another name of this page, as browsers write it; may be repeated.", show_default="none"
        ),
    ] = None,
    read_only: Annotated[
        bool | None, typer.Option("--read-only", help="Nobody submits or aborts here.", show_default="no")
    ] = None,
    kit: Kit = None,
    broker_url: BrokerUrl = None,
) -> None:
    """Show jobs, sites and curves in a browser, live; until Ctrl-C."""
    raise typer.Exit(
        serve(
            host=host,
            port=port,
            token_file=token_file,
            proxy_header=proxy_header,
            trusted_proxies=tuple(trusted_proxy) if trusted_proxy else None,
            hosts=tuple(name) if name else None,
            read_only=read_only,
            kit=kit,
            broker_url=broker_url,
        )
    )


def serve(**flags: object) -> int:
    """Run the page until a signal; flags that are None were not given. Raises SettingsError."""
    from fedbus.web.beside import check_installed

    check_installed()
    from fedbus.runtime.lifecycle import run_daemon
    from fedbus.runtime.logging import configure_logging
    from fedbus.web.serve import Page
    from fedbus.web.settings import WebSettings

    settings = WebSettings.load(**flags)
    submitter = settings.submitter(alone=True)
    configure_logging(submitter.log_level, submitter.log_format)
    page = Page(settings, submitter)
    typer.echo(page.address)
    return run_daemon(page.run)
