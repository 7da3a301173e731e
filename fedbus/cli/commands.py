"""The commands of `fedbus`. Every import that costs time is inside its command, so that `--help` answers at once."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from fedbus.cli import completion, forget, jobs
from fedbus.cli.audit import audit_app
from fedbus.cli.backup import backup, restore
from fedbus.cli.broker import broker_app
from fedbus.cli.check import check
from fedbus.cli.compare import compare, cross_site
from fedbus.cli.contribution import contribution
from fedbus.cli.data import data_app
from fedbus.cli.doctor import doctor
from fedbus.cli.export import export
from fedbus.cli.names import check_names, use_kit
from fedbus.cli.provision import MAKE, kit_app, provision_app, request_kit
from fedbus.cli.replay import replay
from fedbus.cli.report import report
from fedbus.cli.schema import schema
from fedbus.cli.simulate import simulate
from fedbus.cli.site import site_app
from fedbus.cli.top import top
from fedbus.cli.track import track
from fedbus.cli.web import web


class _PlainFlags:
    """Help without a type behind a flag: `--watch` takes no <bool>."""

    def get_params(self, ctx: Any) -> Any:
        params = super().get_params(ctx)  # type: ignore[misc]  # of the command or group beside it
        for param in params:
            if getattr(param, "is_flag", False):
                param.metavar = ""
        return params


class _Command(_PlainFlags, TyperCommand):
    """A command."""


class _Group(_PlainFlags, TyperGroup):
    """A group of commands."""


class _ProvisionGroup(_Group):
    """`provision FILE.yaml` is `provision make FILE.yaml`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0].endswith((".yaml", ".yml")):
            args = [MAKE, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    help="Asynchronous federated learning over RabbitMQ. Start with `fedbus demo`.",
    epilog="Settings: flags, FEDBUS_* environment, a TOML file named by FEDBUS_CONFIG. Exit codes: 0 done, 1 an error,"
    " 2 wrong usage, 3 published and not answered yet.",
)
TRY = "Try and measure"
app.add_typer(broker_app, name="broker", cls=_Group)
app.add_typer(site_app, name="site", cls=_Group)
site_app.command("request")(request_kit)
app.add_typer(provision_app, name="provision", cls=_ProvisionGroup)
app.add_typer(kit_app, name="kit", cls=_Group)
app.add_typer(audit_app, name="audit", cls=_Group)


def show_version(context: typer.Context, wanted: bool) -> None:
    """Print the version and leave; not where a shell completes a line with it."""
    if wanted and not context.resilient_parsing:
        from fedbus import __version__

        typer.echo(f"fedbus {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings.", envvar="FEDBUS_CONFIG")] = None,
    kit: jobs.Kit = None,
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Settings that hold for every command."""
    if config is not None:
        os.environ["FEDBUS_CONFIG"] = str(config)
    if kit is not None:
        os.environ["FEDBUS_KIT"] = str(kit)
    if context.invoked_subcommand != "doctor":  # which finds that among other things
        check_names()


@app.command(rich_help_panel=TRY)
def demo(
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the facts there too.")] = None,
    keep: Annotated[Path | None, typer.Option(metavar="DIR", help="Keep state and logs in this folder.")] = None,
    tls: Annotated[
        bool, typer.Option("--tls", help="Provision a federation for it: certificates, TLS, sealing, policies.")
    ] = False,
) -> None:
    """Train one model across four hospitals on this machine, with real processes and a real RabbitMQ."""
    from fedbus.demo.run import run_demo

    raise typer.Exit(run_demo(json_file=json_file, keep=keep, tls=tls))


@app.command()
def aggregator(
    state_dir: Annotated[
        Path | None, typer.Option(help="Ledger, spool and checkpoints.", show_default="$FEDBUS_HOME/aggregator")
    ] = None,
    kit: jobs.Kit = None,
    broker_url: jobs.BrokerUrl = None,
    params_dir: Annotated[
        Path | None, typer.Option(help="Where `initial_params` are found.", show_default="STATE_DIR/params")
    ] = None,
    keep_updates: Annotated[
        bool | None,
        typer.Option(
            "--keep-updates", help="Keep every folded update on disk, for `fedbus replay`.", show_default="no"
        ),
    ] = None,
    web: Annotated[
        bool | None, typer.Option("--web", help="Run the status page in this process.", show_default="no")
    ] = None,
    web_port: Annotated[
        int | None, typer.Option("--web-port", help="Its port; 0: a free one.", show_default="8765")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.", show_default="info")] = None,
    log_format: Annotated[str | None, typer.Option(help="auto, json or console.", show_default="auto")] = None,
) -> None:
    """Run the aggregator daemon until a signal."""
    use_kit(kit)
    from fedbus.aggregator.start import start
    from fedbus.web.beside import page_beside

    code = start(
        page=lambda: page_beside(port=web_port),
        web=web if web_port is None else True,
        state_dir=state_dir,
        kit=kit,
        broker_url=broker_url,
        params_dir=params_dir,
        keep_updates=keep_updates,
        log_level=log_level,
        log_format=log_format,
    )
    raise typer.Exit(code)


@app.command()
def retry(
    name: Annotated[
        str,
        typer.Argument(help="Name of a site whose daemon runs on this machine.", autocompletion=completion.sites_here),
    ],
    state_dir: Annotated[
        Path | None, typer.Option(help="Its state folder.", show_default="$FEDBUS_HOME/sites/NAME")
    ] = None,
) -> None:
    """Let a site daemon on this machine try at once what failed, and what it had given up.

    For when you have mended something: mounted the folder, freed the GPU, installed the package.
    """
    from fedbus.site.start import try_now

    typer.echo(try_now(name, state_dir))


app.command()(doctor)
app.command()(check)
app.command()(schema)
app.command()(jobs.submit)
app.command("jobs")(jobs.list_jobs)
app.command()(jobs.show)
app.command("sites")(jobs.list_sites)
app.command()(jobs.watch)
app.command()(top)
app.command()(track)
app.command()(web)
app.command()(jobs.get)
app.command()(export)
app.command()(jobs.history)
app.command()(compare)
app.command("cross-site")(cross_site)
app.command()(report)
app.command()(jobs.abort)
app.command()(forget.rm)
app.command()(forget.prune)
app.command()(backup)
app.command()(restore)
app.command()(replay)
app.command()(contribution)
app.command(rich_help_panel=TRY)(simulate)
app.add_typer(data_app, name="data", cls=_Group, rich_help_panel=TRY)
if importlib.util.find_spec("fedbus.bench"):  # measurements and attacks are for a checkout, a wheel has none
    from fedbus.cli import bench_compare, bench_hospital  # noqa: F401 - their commands join those of `bench`
    from fedbus.cli.bench import bench_app
    from fedbus.cli.chaos import chaos

    app.command(rich_help_panel=TRY)(chaos)
    app.add_typer(bench_app, name="bench", cls=_Group, rich_help_panel=TRY)


for _typer in (app, *(group.typer_instance for group in app.registered_groups)):
    for _info in _typer.registered_commands if _typer else ():
        _info.cls = _Command
