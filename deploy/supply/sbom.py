"""A CycloneDX 1.6 bill of materials: every package of a release with its version, licence, hash and what it needs.

Made of what is installed here, without a network, and the same for the same packages: it has no date and no random id.
A hash is that of the package's file where `deploy/hashes.txt` knows it. Each package, torch too, has the hash of its
RECORD, which lists the hashes of all its installed files, as the property `fedbus:record-sha256`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from supply.packages import EVERYTHING, FEDBUS, RUN_TIME, Package, canonical, closure, own_needs, own_version


def bill(known: Mapping[str, tuple[str, str]], *, wheel: Path | None = None) -> dict[str, Any]:
    """The bill as JSON-able data. `known`: version and SHA-256 of files; `wheel`: that of fedbus, if it is built."""
    packages, needed = closure(EVERYTHING), closure(RUN_TIME)
    fedbus = f"pkg:pypi/{FEDBUS}@{own_version()}"
    own = sorted({_reference(packages[canonical(need.name)]) for need in own_needs(EVERYTHING) if need.name != FEDBUS})
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": _application(fedbus, wheel)},
        "components": [
            _component(package, known, required=name in needed) for name, package in sorted(packages.items())
        ],
        "dependencies": [
            {"ref": fedbus, "dependsOn": own},
            *(
                {"ref": _reference(package), "dependsOn": [_reference(packages[need]) for need in package.needs]}
                for _, package in sorted(packages.items())
            ),
        ],
    }


def write(path: Path, known: Mapping[str, tuple[str, str]], *, wheel: Path | None = None) -> int:
    """Write the bill; the number of its components."""
    made = bill(known, wheel=wheel)
    path.write_text(json.dumps(made, indent=1) + "\n")
    return len(made["components"])


def _application(reference: str, wheel: Path | None) -> dict[str, Any]:
    made = {"type": "application", "name": FEDBUS, "version": own_version(), "bom-ref": reference}
    licence = {"licenses": [{"license": {"id": "Apache-2.0"}}]}
    return {**made, **licence, **(_hashes(hashlib.sha256(wheel.read_bytes()).hexdigest()) if wheel else {})}


def _component(package: Package, known: Mapping[str, tuple[str, str]], *, required: bool) -> dict[str, Any]:
    version, digest = known.get(package.name, ("", ""))
    made: dict[str, Any] = {
        "type": "library",
        "name": package.name,
        "version": package.version,
        "bom-ref": _reference(package),
        "purl": _reference(package),
        "scope": "required" if required else "optional",
    }
    if package.license:
        made["licenses"] = [{"license": {"name": package.license}}]
    if version == package.version:
        made |= _hashes(digest)
    made["properties"] = [{"name": "fedbus:record-sha256", "value": package.record_sha256}]
    return made


def _hashes(digest: str) -> dict[str, Any]:
    return {"hashes": [{"alg": "SHA-256", "content": digest}]}


def _reference(package: Package) -> str:
    return f"pkg:pypi/{package.name}@{package.version}"
