"""`fedbus site`: the daemon of a site, and what people at the site look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedbus.cli import completion
from fedbus.cli.jobs import BrokerUrl, Kit
from fedbus.cli.names import use_kit
from fedbus.cli.report import Force
from fedbus.runtime.printable import printable

site_app = typer.Typer(invoke_without_command=True, no_args_is_help=False, subcommand_metavar="[COMMAND]")


@site_app.callback()
def site(
    context: typer.Context,
    name: Annotated[str | None, typer.Option(help="Name of the site: its login at the broker.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder with this site's data.")] = None,
    state_dir: Annotated[
        Path | None, typer.Option(help="Outbox and model files.", show_default="$FEDBUS_HOME/sites/NAME")
    ] = None,
    kit: Kit = None,
    broker_url: BrokerUrl = None,
    policy: Annotated[
        Path | None, typer.Option(help="The hospital's policy.toml: what it refuses is not done.", show_default="none")
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option("--task", help="A task that may run here; once per task.", show_default="all installed"),
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.", show_default="auto")] = None,
    threads: Annotated[int | None, typer.Option(help="Torch threads of the trainer.", show_default="1")] = None,
    min_contributors: Annotated[
        int | None,
        typer.Option(help="Only jobs that make every version of updates of so many sites.", show_default="1"),
    ] = None,
    min_batch_size: Annotated[
        int | None, typer.Option(help="Only jobs whose local batches are as large.", show_default="1")
    ] = None,
    max_jobs: Annotated[
        int | None, typer.Option(help="Jobs trained at once.", show_default="one per GPU, or one")
    ] = None,
    ranks: Annotated[
        int | None,
        typer.Option(help="Processes that train one job together, a GPU each.", show_default="all free GPUs, or one"),
    ] = None,
    max_in_flight: Annotated[
        int | None, typer.Option(help="Updates that may await their receipt.", show_default="1")
    ] = None,
    status_interval_s: Annotated[
        float | None, typer.Option(help="Seconds between two status messages.", show_default="10")
    ] = None,
    slowdown: Annotated[
        float | None, typer.Option(help="Train so many times slower (demonstrations).", show_default="1")
    ] = None,
    step_delay_s: Annotated[
        float | None, typer.Option(help="Pause after each step (demonstrations).", show_default="0")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.", show_default="info")] = None,
    log_format: Annotated[str | None, typer.Option(help="auto, json or console.", show_default="auto")] = None,
) -> None:
    """Run a site daemon until a signal, or make a report for the people at the site."""
    use_kit(kit)
    given = {
        "site_name": name,
        "site_data": data,
        "site_state_dir": state_dir,
        "kit": kit,
        "broker_url": broker_url,
        "policy": policy,
        "tasks": tuple(tasks) if tasks else None,
        "device": device,
        "threads": threads,
        "min_contributors": min_contributors,
        "min_batch_size": min_batch_size,
        "max_jobs": max_jobs,
        "ranks": ranks,
        "max_in_flight": max_in_flight,
        "status_interval_s": status_interval_s,
        "slowdown": slowdown,
        "step_delay_s": step_delay_s,
        "log_level": log_level,
        "log_format": log_format,
    }
    if context.invoked_subcommand is not None:
        context.obj = given
        return
    from fedbus.site.start import start

    raise typer.Exit(start(**given))


@site_app.command()
def report(
    context: typer.Context,
    job: Annotated[
        str | None, typer.Argument(help="Id of the job.", show_default="the one whose model here is newest")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the site.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder with this site's data.")] = None,
    state_dir: Annotated[
        Path | None, typer.Option(help="Outbox and model files.", show_default="$FEDBUS_HOME/sites/NAME")
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A file .html or .json.", show_default="STATE_DIR/reports/JOB-version-N.html"
        ),
    ] = None,
    worst: Annotated[int, typer.Option(min=1, max=50, help="How many of the worst cases are shown.")] = 1,
    device: Annotated[str, typer.Option(help="Where the model runs: cpu, cuda or cuda:N.")] = "cpu",
    force: Force = False,
) -> None:
    """Show the site's own test cases under the model that it holds: best, median and worst, with outlines.

    For the people at the site: the page has images of patients and stays on this site's disk. Needs no broker.
    """
    import logging
    import time

    from fedbus.casebook.make import write_casebook
    from fedbus.site.settings import SiteSettings

    given = {"site_name": name, "site_data": data, "site_state_dir": state_dir}
    flags = (context.obj or {}) | {key: value for key, value in given.items() if value is not None}
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    settings = SiteSettings.load(**flags)
    path = write_casebook(settings, job, to=to, force=force, worst=worst, device=device, now=time.time())
    typer.echo(f"for the people of {settings.site_name} alone, it has images of patients: {printable(str(path))}")


Name = Annotated[str | None, typer.Option(help="Name of the site.", autocompletion=completion.sites_here)]
StateDir = Annotated[Path | None, typer.Option(help="Its state folder.", show_default="$FEDBUS_HOME/sites/NAME")]


@site_app.command()
def stop(
    context: typer.Context,
    now: Annotated[bool, typer.Option("--now", help="Pull the plug: within a second, and without a word.")] = False,
    name: Name = None,
    state_dir: StateDir = None,
) -> None:
    """Stop the site's daemon on this machine, whatever the aggregator says; it stays out until `fedbus site resume`."""
    from fedbus.site.stopping import stop

    typer.echo(printable(stop(*_place(context, name, state_dir), now=now)))


@site_app.command()
def resume(context: typer.Context, name: Name = None, state_dir: StateDir = None) -> None:
    """Let a site that was stopped start again."""
    from fedbus.site.stopping import resume

    typer.echo(printable(resume(*_place(context, name, state_dir))))


@site_app.command()
def forget(
    context: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", help="Delete it; without it it is only listed.")] = False,
    name: Name = None,
    state_dir: StateDir = None,
) -> None:
    """Delete what the site keeps of jobs, keys and models; the audit log stays. A daemon that runs is stopped first."""
    from fedbus.cli.forget import size_of
    from fedbus.site.forgetting import forget, what_goes

    state, site = _place(context, name, state_dir)
    items, stopped = forget(state, site) if yes else (what_goes(state), "")
    for item in items:
        typer.echo(f"{size_of(item.size_bytes):>9}  {printable(str(item.path))}")
    if stopped:
        typer.echo(printable(stopped))
    total = size_of(sum(item.size_bytes for item in items))
    said = f"{total} deleted; the audit log is kept" if yes else f"{total}: nothing was deleted; add --yes to do it"
    typer.echo(said if items else f"nothing of jobs, keys or models is in {printable(str(state))}")


def _place(context: typer.Context, name: str | None, state_dir: Path | None) -> tuple[Path, str]:
    """The state folder and the name. With --state-dir no setting is read: a wrong one must not be in the way."""
    flags: dict[str, object] = context.obj or {}
    folder, site = state_dir or flags.get("site_state_dir"), name or flags.get("site_name")
    if isinstance(folder, Path):
        return folder, str(site or folder.name)
    from fedbus.site.settings import SiteSettings

    given = {key: value for key, value in flags.items() if key in ("kit", "site_data") and value is not None}
    settings = SiteSettings.load(**({"site_data": Path()} | given | {"site_name": site}))
    return settings.state_dir, settings.site_name
