"""`fedbus data`: folders to try fedbus with, one per site."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

data_app = typer.Typer(no_args_is_help=True, help="Write data of a few sites to try fedbus with.")

To = Annotated[Path, typer.Option("--to", metavar="DIR", help="Where a folder per site is made.")]


@data_app.command()
def heart(to: To) -> None:
    """920 real patients of four hospitals, for the task `heart_disease`: UCI Heart Disease, CC BY 4.0."""
    from fedbus.tasks.heart_disease_data import HOSPITALS, write_site_data

    _print(to, {hospital: write_site_data(to / hospital, hospital) for hospital in HOSPITALS}, what="patients")


@data_app.command()
def kidneys(
    to: To,
    studies: Annotated[int, typer.Option(min=1, help="Studies per site.")] = 24,
    seed: Annotated[int, typer.Option(min=0, help="Draws them.")] = 0,
) -> None:
    """Synthetic kidneys with a tumour, of three hospitals whose scanners differ; no patient's data."""
    from fedbus.imaging.kidneys import write_kidneys

    _print(to, write_kidneys(to, studies=studies, seed=seed))


@data_app.command()
def hippocampus(
    archive: Annotated[Path, typer.Argument(help="Task04 of the Medical Segmentation Decathlon, as a tar file.")],
    to: To,
) -> None:
    """260 labelled hippocampi (MR) as three sites, by the scale in which their intensities are stored."""
    from fedbus.imaging.hippocampus import write_hippocampus

    _print(to, write_hippocampus(archive, to))


def _print(to: Path, counts: Mapping[str, int], *, what: str = "studies") -> None:
    for site, count in counts.items():
        typer.echo(f"{to / site}  {count} {what}")
