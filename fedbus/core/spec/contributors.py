"""Which job specs cannot keep what `min_contributors` promises, and with which key that is mended."""

from __future__ import annotations

from fedbus.core.spec.sections import (
    AutoSpec,
    BufferedSpec,
    CalibratedSpec,
    FedAsyncSpec,
    RobustSpec,
    StrategySpec,
    SyncSpec,
)
from fedbus.core.spec.text import SpecValueError


def check_contributors(
    least: int, *, strategy: StrategySpec, robust: RobustSpec | None, sites: tuple[str, ...] | None
) -> None:
    """Raise SpecValueError when a version can never come from `least` distinct sites."""
    if least == 1:
        return
    each = f"min_contributors asks for {least} sites in every version"
    if sites is not None and least > len(sites):
        raise SpecValueError("min_contributors", f"is {least}, but sites lists only {len(sites)}")
    match strategy:
        case FedAsyncSpec():
            raise SpecValueError("strategy", f"makes a version of every update, and {each}; use auto or buffered")
        case SyncSpec(k=int(k)) if k < least:
            raise SpecValueError("strategy.k", f"is {k}, but {each}; raise k, or leave it out")
        case AutoSpec(buffer=int(size)) | BufferedSpec(buffer=int(size)) | CalibratedSpec(buffer=int(size)):
            if size < least:
                raise SpecValueError("strategy.buffer", f"is {size}, but {each}; raise it, or leave it out")
    if robust is not None and robust.kind == "median":
        raise SpecValueError("robust.kind", f"median takes each number from a site or two, and {each}; use multi_krum")
