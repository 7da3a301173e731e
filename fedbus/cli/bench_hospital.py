"""`fedbus bench` for the hospital's work: segmentation, faults in data, intervals, annotation, continued training."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from fedbus.cli.bench import Format, bench_app, print_rows
from fedbus.cli.broker import Output


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@bench_app.command()
def intervals(
    cases: Annotated[
        list[int] | None, typer.Option(min=5, help="Test cases of a site; once per number.", show_default="10, 36, 100")
    ] = None,
    repetitions: Annotated[int, typer.Option(min=1, help="How often each is drawn anew.")] = 1000,
    output: Format = Output.TEXT,
) -> None:
    """In how many repetitions nominal 95 % intervals hold the truth, and how much narrower paired ones are."""
    from fedbus.bench.intervals import cost_rows, rows

    print_rows([*rows(cases=tuple(cases or (10, 36, 100)), repetitions=repetitions), *cost_rows()], output)


@bench_app.command()
def segmentation(
    job: Annotated[Path, typer.Argument(metavar="JOB.yaml", help="A job of the task segmentation.")],
    data: Annotated[Path, typer.Option(help="A folder per site, as `fedbus data` writes them.")],
    baselines: Annotated[bool, typer.Option(help="Train pooled and at each site alone, too.")] = True,
    output: Format = Output.TEXT,
) -> None:
    """Dice and time of a segmentation job with real daemons, beside the pooled model and those of each site alone."""
    from fedbus.bench.segmentation import rows
    from fedbus.runtime.logging import configure_logging

    configure_logging("error")
    print_rows(rows(job, data, baselines=baselines, say=_say), output)


@bench_app.command()
def data_faults(
    seeds: Annotated[int, typer.Option(min=1, help="How many splits of the data.")] = 20,
    volumes: Annotated[Path | None, typer.Option(help="A folder with the studies of Task04 Hippocampus.")] = None,
    output: Format = Output.TEXT,
) -> None:
    """Faults planted in one site's data: how often a data check names it, and how often another site."""
    from fedbus.bench.data_faults import rows

    print_rows(rows(seeds=seeds, volumes=volumes, say=_say), output)


@bench_app.command()
def label_faults(
    seeds: Annotated[int, typer.Option(min=1, help="How many splits of the data.")] = 20,
    alpha: Annotated[
        float, typer.Option(min=0.01, help="How alike the sites' classes are: 0.3 hardly, 100 quite.")
    ] = 1.0,
    others: Annotated[bool, typer.Option(help="Also by models of the others, one a site.")] = False,
    volumes: Annotated[
        Path | None,
        typer.Option(
            help="A folder with the studies of Task04 Hippocampus: instead of digits.", exists=True, file_okay=False
        ),
    ] = None,
    output: Format = Output.TEXT,
) -> None:
    """Wrong labels at one of four sites: how often a data check names the site by the model, and how often in vain."""
    from fedbus.bench import label_faults, label_faults_volumes
    from fedbus.runtime.logging import configure_logging

    if volumes is not None:
        configure_logging("error")
        rows = label_faults_volumes.rows(volumes, seeds=seeds, say=_say)
    else:
        models = label_faults.MODELS if others else label_faults.MODELS[:1]
        rows = label_faults.rows(seeds=seeds, alpha=alpha, models=models, say=_say)
    print_rows(rows, output)


@bench_app.command()
def annotation(
    hippocampus: Annotated[
        Path | None, typer.Option(metavar="TGZ", help="Task04 of the Decathlon; synthetic kidneys without it.")
    ] = None,
    first: Annotated[int, typer.Option(min=2, help="Labels that the job waits for, all of the first site.")] = 4,
    later: Annotated[int, typer.Option(min=0, help="Labels that come while it trains.")] = 26,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two labels.")] = 2.5,
    versions: Annotated[int, typer.Option(min=2, help="Versions of the job.")] = 40,
    output: Format = Output.TEXT,
) -> None:
    """Labels come site by site while a job trains: Dice of the models that are handed back, over time."""
    from fedbus.bench.annotation.plans import plan_of
    from fedbus.bench.annotation.run import rows
    from fedbus.runtime.logging import configure_logging

    configure_logging("error")
    with tempfile.TemporaryDirectory(prefix="fedbus-studies-") as folder:
        plan = plan_of(Path(folder), hippocampus, first=first, later=later, every_s=every, versions=versions)
        print_rows(rows(plan, say=_say), output)


@bench_app.command()
def continual(
    hippocampus: Annotated[
        Path | None,
        typer.Option(
            help="A folder per site, see `fedbus data hippocampus`; without it digits.", exists=True, file_okay=False
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Splits of the data; medians are printed.")] = 5,
    output: Format = Output.TEXT,
) -> None:
    """New data on old weights: alone, together with the old ones, or all from scratch."""
    from fedbus.bench.continual import DIGITS, HIPPOCAMPUS, rows

    setting = DIGITS if hippocampus is None else HIPPOCAMPUS
    print_rows(rows(setting, data=hippocampus, seeds=seeds, say=_say), output)


@bench_app.command()
def personal(
    seeds: Annotated[int, typer.Option(min=1, help="Seeds; means are printed.")] = 5,
    output: Format = Output.TEXT,
) -> None:
    """Private heads: one trunk for hospitals that do not measure or ask the same, beside one model and each alone."""
    from fedbus.bench.personal import rows

    print_rows(rows(seeds=seeds, say=_say), output)


@bench_app.command()
def one_class(
    data: Annotated[
        Path, typer.Option(help="A folder per site, see `fedbus data hippocampus`.", exists=True, file_okay=False)
    ],
    seeds: Annotated[int, typer.Option(min=1, help="Seeds; means are printed.")] = 2,
    trainings: Annotated[int, typer.Option(min=1, help="Of each site, of 10 steps each.")] = 6,
    output: Format = Output.TEXT,
) -> None:
    """The largest site labels the first class only: Dice with the marginal loss, and with the rest as background."""
    from fedbus.bench.one_class import rows
    from fedbus.runtime.logging import configure_logging

    configure_logging("error")
    print_rows(rows(data, seeds=seeds, trainings=trainings, say=_say), output)
