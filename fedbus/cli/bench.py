"""`fedbus bench`: figures as rows of case, value, unit, goal, met."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fedbus.cli.broker import Output

bench_app = typer.Typer(no_args_is_help=True, help="Measure fedbus on this machine.")

Format = Annotated[Output, typer.Option("--output", "-o", help="How to print.")]


@bench_app.command()
def transport(
    mib: Annotated[list[int] | None, typer.Option("--mib", help="Model sizes in MiB.", show_default="1, 50")] = None,
    updates: Annotated[int, typer.Option(help="Updates measured per size; with --cost, repetitions.")] = 15,
    cost: Annotated[
        bool, typer.Option("--cost", help="Instead: processor seconds per GB, plain and TLS, unsealed and sealed.")
    ] = False,
    output: Format = Output.TEXT,
) -> None:
    """Update published → new version held by the other site, with real daemons on a private node."""
    from fedbus.runtime.logging import configure_logging

    configure_logging("error")
    if cost:
        from fedbus.bench.transport_cost import cost_rows

        (size,) = mib or [64]
        print_rows(cost_rows(mib=size, times=updates), output)
        return
    from fedbus.bench.transport import rows

    print_rows(rows(sizes_mib=mib or [1, 50], updates=updates), output)


@bench_app.command()
def codec(output: Format = Output.TEXT) -> None:
    """GB/s of float32 encoded, decoded and folded per code, 25 M params on one core, beside memcpy."""
    from fedbus.bench.codec import rows

    print_rows(rows(), output)


@bench_app.command()
def fold(output: Format = Output.TEXT) -> None:
    """GB/s of a fold at 1, 10 and 100 M params, against the bandwidth of memory."""
    from fedbus.bench.fold import rows

    print_rows(rows(), output)


@bench_app.command()
def announcer(
    sites: Annotated[int, typer.Option(min=1, help="Sites that receipts go to.")] = 60,
    messages: Annotated[int, typer.Option(min=1, help="Messages per row.")] = 2000,
    output: Format = Output.TEXT,
) -> None:
    """Events and receipts per second that the aggregator says, on a private node."""
    from fedbus.bench.announcer import rows
    from fedbus.runtime.logging import configure_logging

    configure_logging("error")
    print_rows(rows(sites=sites, messages=messages), output)


@bench_app.command("model-log")
def model_log(
    mib: Annotated[int, typer.Option("--mib", min=1, help="Size of a version in MiB.")] = 64,
    times: Annotated[int, typer.Option(min=1, help="Versions of each kind.")] = 9,
    output: Format = Output.TEXT,
) -> None:
    """What hashing and sealing a version costs the aggregator and each site, in processor seconds per GB."""
    from fedbus.bench.model_log import rows

    print_rows(rows(mib=mib, times=times), output)


@bench_app.command()
def audit(
    updates: Annotated[int, typer.Option(min=1, help="Updates that are sent.")] = 6,
    mib: Annotated[int, typer.Option("--mib", min=1, help="MiB of an update, a chunk each.")] = 16,
    messages: Annotated[int, typer.Option(min=1, help="Messages of two kinds that are sent.")] = 50,
    output: Format = Output.TEXT,
) -> None:
    """Bytes of a site's audit log against bytes of its sockets, and what the log costs."""
    from fedbus.bench.audit import rows
    from fedbus.runtime.logging import configure_logging

    configure_logging("error")
    print_rows(rows(updates=updates, chunks=mib, messages=messages), output)


@bench_app.command()
def checkpoint(
    mib: Annotated[list[int] | None, typer.Option("--mib", help="Model sizes in MiB.", show_default="50")] = None,
    times: Annotated[int, typer.Option(min=1, help="Checkpoints per size.")] = 9,
    output: Format = Output.TEXT,
) -> None:
    """What a checkpoint holds up, and for how long."""
    from fedbus.bench.checkpoint import rows

    print_rows(list(rows(sizes_mib=mib or [50], times=times)), output)


@bench_app.command()
def recovery(
    mib: Annotated[int, typer.Option("--mib", help="Model size in MiB.")] = 50,
    kills: Annotated[int, typer.Option(help="How often the aggregator is killed.")] = 5,
    output: Format = Output.TEXT,
) -> None:
    """Aggregator killed and started again → first new fold."""
    from fedbus.bench.recovery import rows
    from fedbus.runtime.logging import configure_logging

    configure_logging("error")
    print_rows(rows(mib=mib, kills=kills), output)


@bench_app.command()
def crash_safety(
    mib: Annotated[list[int] | None, typer.Option("--mib", help="Model sizes in MiB.", show_default="1, 50")] = None,
    updates: Annotated[int, typer.Option(help="Updates measured per turn.")] = 9,
    turns: Annotated[int, typer.Option(help="How often each of the two is run.")] = 3,
    output: Format = Output.TEXT,
) -> None:
    """Transport with crash-safety and without, turn by turn."""
    from fedbus.bench.crash_safety import rows
    from fedbus.runtime.logging import configure_logging

    configure_logging("error")
    print_rows(rows(sizes_mib=mib or [1, 50], updates=updates, turns=turns), output)


@bench_app.command()
def memory(
    mib: Annotated[
        list[int] | None, typer.Option("--mib", help="Model sizes in MiB; needs 10 x that.", show_default="1, 50")
    ] = None,
    updates: Annotated[int, typer.Option(help="Updates of the backlog; 0: none.")] = 50,
    output: Format = Output.TEXT,
) -> None:
    """Peak memory of the daemons, for a job of each size and for a backlog of updates."""
    from fedbus.bench.memory import rows
    from fedbus.runtime.logging import configure_logging

    configure_logging("error")
    print_rows(rows(sizes_mib=mib or [1, 50], updates=updates), output)


@bench_app.command()
def page(
    events: Annotated[int, typer.Option(min=1_000, help="Events of the job.")] = 100_000,
    sites: Annotated[int, typer.Option(min=2, help="Sites of the job.")] = 200,
    output: Format = Output.TEXT,
) -> None:
    """What the status page costs: memory beside the aggregator, processor time for events and for 200 browsers."""
    from fedbus.bench.page import rows
    from fedbus.runtime.logging import configure_logging

    configure_logging("error")
    print_rows(list(rows(events=events, sites=sites)), output)


@bench_app.command()
def abuse(
    deliveries: Annotated[int, typer.Option(min=1, help="Abuses sent, each of one or two messages.")] = 10_000,
    duplicates: Annotated[int, typer.Option(min=0, help="How often one update is sent again.")] = 1_000_000,
    seed: Annotated[int, typer.Option(help="Draws the abuses.")] = 1,
    output: Format = Output.TEXT,
) -> None:
    """One site sends whatever breaks the protocol: what becomes of it, and of the updates of the others."""
    from fedbus.bench.abuse.run import rows
    from fedbus.runtime.logging import configure_logging

    configure_logging("error")
    print_rows(rows(deliveries=deliveries, duplicates=duplicates, seed=seed), output)


@bench_app.command()
def soak(
    sites: Annotated[int, typer.Option(min=1, help="Site daemons, each with a trainer that only waits.")] = 200,
    minutes: Annotated[float, typer.Option(help="How long the job trains.")] = 5.0,
    processes: Annotated[int, typer.Option(min=1, help="Processes that the site daemons share.")] = 4,
    mib: Annotated[float, typer.Option("--mib", help="Model size in MiB.")] = 1.0,
    train_s: Annotated[float, typer.Option(help="Mean of a training, half more or less, in seconds.")] = 5.0,
    output: Format = Output.TEXT,
) -> None:
    """Many sites against one aggregator for minutes."""
    from fedbus.bench.soak import SoakPlan, rows
    from fedbus.runtime.logging import configure_logging

    configure_logging("error")
    plan = SoakPlan(sites=sites, seconds=60 * minutes, processes=processes, mib=mib, train_s=train_s)
    print_rows(rows(plan), output)


@bench_app.command()
def slow_link(
    mbit: Annotated[float, typer.Option(min=0.001, help="Rate of the line, each way.")] = 10.0,
    rtt_ms: Annotated[float, typer.Option(min=0, help="Round trip.")] = 200.0,
    loss: Annotated[float, typer.Option(min=0, max=99, help="Packets lost, each way, in percent.")] = 2.0,
    seconds: Annotated[float, typer.Option(help="How long the line is up before and after the cut.")] = 60.0,
    cut_s: Annotated[float, typer.Option(help="How long it is cut.")] = 30.0,
    mib: Annotated[float, typer.Option("--mib", help="Model size in MiB.")] = 4.0,
    congestion: Annotated[str, typer.Option(help="Congestion control of both ends: reno, bbr, ...")] = "reno",
    output: Format = Output.TEXT,
) -> None:
    """A site behind a slow, lossy line that is cut for a while. Needs root and /dev/net/tun."""
    from fedbus.bench.slow_link.line import LineSpec
    from fedbus.bench.slow_link.run import SlowPlan, rows
    from fedbus.runtime.logging import configure_logging

    configure_logging("error")
    line = LineSpec(mbit=mbit, rtt_s=rtt_ms / 1000, loss=loss / 100)
    print_rows(rows(SlowPlan(line=line, seconds=seconds, cut_s=cut_s, mib=mib, congestion=congestion)), output)


@bench_app.command()
def agreement(
    seeds: Annotated[int, typer.Option(min=1, help="How many jobs, each of another seed; one takes 80 s.")] = 9,
    scale: Annotated[float, typer.Option(min=0.01, help="Real seconds of a virtual one.")] = 2.0,
    target: Annotated[float, typer.Option(min=0, max=1, help="Accuracy that ends a job.")] = 0.85,
    output: Format = Output.TEXT,
) -> None:
    """Time to target with eight real site daemons, and of the same job in virtual time."""
    import torch

    from fedbus.bench.agreement import rows
    from fedbus.runtime.logging import configure_logging

    configure_logging("error")
    torch.set_num_threads(1)
    print_rows(rows(seeds=range(seeds), scale_s=scale, target=target), output)


@bench_app.command()
def batch_norm(
    task: Annotated[str, typer.Option(help="digits or fashion_mnist.")] = "digits",
    network: Annotated[str, typer.Option(help="bn_cnn; resnet18 or densenet121 where they are installed.")] = "bn_cnn",
    seeds: Annotated[int, typer.Option(min=1, help="Splits of the data; medians are printed.")] = 3,
    until: Annotated[float, typer.Option(min=1, help="Virtual seconds of a run.")] = 200,
    scanners: Annotated[bool, typer.Option(help="Half of the sites have another scanner: average or keep?")] = False,
    scale: Annotated[float, typer.Option(help="What the other scanner does to a pixel.")] = 0.4,
    shift: Annotated[float, typer.Option(help="The same: scale * pixel + shift.")] = 0.6,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    output: Format = Output.TEXT,
) -> None:
    """A network with running statistics under every rule, optimizer and code, against synchronous FedAvg."""
    import sys
    from functools import partial

    from fedbus.bench.batch_norm import rows, scanner_rows

    say = partial(print, file=sys.stderr, flush=True)
    run = partial(scanner_rows, scale=scale, shift=shift) if scanners else rows
    print_rows(run(task=task, network=network, seeds=seeds, until_s=until, workers=workers, say=say), output)


@bench_app.command()
def browser(
    sites: Annotated[int, typer.Option(min=1, help="Sites of the job that is looked at.")] = 200,
    events: Annotated[int, typer.Option(min=1, help="Events before anybody looks.")] = 100_000,
    rate: Annotated[int, typer.Option(min=1, help="Events a second from then on.")] = 100,
    seconds: Annotated[float, typer.Option(min=1, help="How long each page is looked at.")] = 60.0,
    output: Format = Output.TEXT,
) -> None:
    """First paint of the status page, and its longest task, in a real browser (chromium) over a long job."""
    from fedbus.bench.browser.run import rows

    print_rows(rows(sites=sites, events=events, rate=rate, seconds=seconds), output)


def print_rows(rows: list[dict[str, Any]], output: Output) -> None:
    """Print figures as a table or as JSON."""
    if output is Output.JSON:
        import json

        typer.echo(json.dumps(rows, indent=1))
        return
    from rich.table import Table

    from fedbus.runtime.terminal import Terminal

    table = Table("case", "value", "unit", "goal", "met")
    for row in rows:
        met = {True: "yes", False: "no", None: ""}[row["met"]]
        goal = "" if row["goal"] is None else f"{row['goal']:g}"
        table.add_row(row["case"], f"{row['value']:.4g}", row["unit"], goal, met)
    Terminal().print(table)
