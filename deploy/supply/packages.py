"""Which packages a release needs, as they are installed here: names, versions, and who needs whom."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
FEDBUS = "fedbus"
RUN_TIME = ("digits", "web", "top", "metrics")
"""The extras that `deploy/setup` installs without an argument."""
EVERYTHING = (
    *RUN_TIME,
    "simulate",
    "monai",
    "dicomweb",
    "flywheel",
    "onnx",
    "otel",
    "tensorboard",
    "mlflow",
    "wandb",
    "docs",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """An installed package. `record_sha256` is of its RECORD, which holds a hash of each of its files."""

    name: str
    version: str
    license: str
    needs: tuple[str, ...]
    record_sha256: str


def canonical(name: str) -> str:
    """A name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(extras: Iterable[str]) -> dict[str, Package]:
    """The packages that the checkout's own pyproject.toml comes to with these extras, by canonical name."""
    found: dict[str, Package] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    left = own_needs(extras)
    while left:
        requirement = left.pop()
        name, wanted = canonical(requirement.name), frozenset(requirement.extras)
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        if name == FEDBUS:  # an extra of ours that is made of others
            left += own_needs(wanted)
            continue
        try:
            installed = distribution(requirement.name)
        except PackageNotFoundError:
            raise SystemExit(f"{requirement.name} is not installed here: run deploy/setup test first") from None
        needs = list(_needs(installed, wanted))
        left += needs
        before = found[name].needs if name in found else ()
        found[name] = _package(installed, {*before, *(canonical(need.name) for need in needs)})
    return found


def own_needs(extras: Iterable[str]) -> list[Requirement]:
    """What pyproject.toml asks for; the metadata of an editable install may be of an older one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"], *(text for extra in extras for text in project["optional-dependencies"][extra])]
    return [Requirement(text) for text in texts]


def own_version() -> str:
    """Of fedbus, as its wheel will have it."""
    found = re.search(r'^__version__ = "(.+)"$', (ROOT / "fedbus" / "__init__.py").read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit("fedbus/__init__.py says no version")
    return found.group(1)


def _needs(installed: Distribution, extras: Iterable[str]) -> Iterator[Requirement]:
    for text in installed.requires or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement


def _package(installed: Distribution, needs: Iterable[str]) -> Package:
    record = installed.read_text("RECORD") or ""
    return Package(
        name=canonical(installed.metadata["Name"]),
        version=installed.version,
        license=_license(installed),
        needs=tuple(sorted(needs)),
        record_sha256=hashlib.sha256(record.encode()).hexdigest() if record else "",
    )


def _license(installed: Distribution) -> str:
    said = installed.metadata.get_all("License-Expression") or []
    classes = installed.metadata.get_all("Classifier") or []
    return " AND ".join(said or [text.rpartition(" :: ")[2] for text in classes if text.startswith("License :: OSI")])
