"""What a job may say in `task_config`: names and numbers, validated whole; no class paths, nothing is evaluated.

Every number has an upper bound, so that no job makes a site build what its memory cannot hold.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from fedbus.core.spec.sections import Spec, kind_from_text
from fedbus.core.spec.text import SpecValueError, problems_of
from fedbus.errors import ContractError

MOST_CLASSES = 64
MOST_PATCH_VOXELS = 1 << 24
CLASS_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_. -]{0,39}")

Share = Annotated[float, Field(ge=0, le=1)]
Sides = Annotated[tuple[Annotated[int, Field(ge=4, le=1024)], ...], Field(strict=False, min_length=3, max_length=3)]
Millimetres = Annotated[
    tuple[Annotated[float, Field(ge=0.01, le=50)], ...], Field(strict=False, min_length=3, max_length=3)
]
Widths = Annotated[tuple[Annotated[int, Field(ge=1, le=1024)], ...], Field(strict=False, min_length=2, max_length=7)]
Blocks = Annotated[tuple[Annotated[int, Field(ge=1, le=8)], ...], Field(strict=False, min_length=1, max_length=7)]
Axes = Annotated[tuple[Literal["x", "y", "z"], ...], Field(strict=False, min_length=1, max_length=3)]
Norm = Literal["instance", "batch"]


def _numbered(value: object) -> object:
    """A list of names as {"1": first, "2": second}; keys as text, as they are after JSON."""
    if isinstance(value, list | tuple):
        return {str(number): name for number, name in enumerate(value, start=1)}
    return {str(key): name for key, name in value.items()} if isinstance(value, Mapping) else value


class UNetSpec(Spec):
    """U-Net (Ronneberger et al. 2015, Çiçek et al. 2016), with residual units where wanted (Kerfoot et al. 2019)."""

    kind: Literal["unet"] = "unet"
    channels: Widths = (16, 32, 64, 128)
    """Feature maps of each level, from the top."""
    res_units: Annotated[int, Field(ge=0, le=8)] = 0
    """Residual units in each level; 0 is a plain U-Net, the fastest on a CPU."""
    norm: Norm = "instance"
    """Normalisation; `batch` has running statistics, see the job's `keep`."""

    @property
    def factor(self) -> int:
        """A patch's sides must be multiples of it."""
        return int(2 ** (len(self.channels) - 1))


class SegResNetSpec(Spec):
    """SegResNet without its autoencoder (Myronenko 2018, arXiv 1810.11654)."""

    kind: Literal["segresnet"] = "segresnet"
    filters: Annotated[int, Field(ge=2, le=256)] = 8
    """Feature maps of the top level; each level below has twice as many."""
    blocks_down: Blocks = (1, 2, 2)
    """Residual blocks of each level on the way down."""
    norm: Norm = "instance"
    """Normalisation; `batch` has running statistics, see the job's `keep`."""

    @property
    def factor(self) -> int:
        """A patch's sides must be multiples of it."""
        return int(2 ** (len(self.blocks_down) - 1))


class DynUNetSpec(Spec):
    """nnU-Net's network (Isensee et al. 2021), kernels 3, strides 2."""

    kind: Literal["dynunet"] = "dynunet"
    channels: Annotated[Widths, Field(min_length=3)] = (16, 32, 64)
    """Feature maps of each level, from the top."""
    norm: Norm = "instance"
    """Normalisation; `batch` has running statistics, see the job's `keep`."""

    @property
    def factor(self) -> int:
        """A patch's sides must be multiples of it."""
        return int(2 ** (len(self.channels) - 1))


class ZScoreSpec(Spec):
    """Subtract the mean of a study's voxels and divide by their standard deviation; for MR."""

    kind: Literal["zscore"] = "zscore"
    nonzero: bool = True
    """Mean and deviation of the voxels that are not 0: of what lies in the scanner's view."""
    clip: Annotated[float, Field(gt=0, le=1000)] = 5.0
    """Deviations at which values are cut."""


class PercentileSpec(Spec):
    """Scale a study's percentiles to 0 and 1 and cut what lies outside; for scales that differ from site to site."""

    kind: Literal["percentile"] = "percentile"
    low: Annotated[float, Field(ge=0, lt=100)] = 0.5
    high: Annotated[float, Field(gt=0, le=100)] = 99.5

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low >= self.high:
            raise SpecValueError("high", f"expected more than low = {self.low}, got {self.high}")
        return self


class WindowSpec(Spec):
    """Scale `low` to 0 and `high` to 1 and cut what lies outside; for CT, in Hounsfield units."""

    kind: Literal["window"] = "window"
    low: Annotated[float, Field(ge=-(10**6), le=10**6)] = -200.0
    high: Annotated[float, Field(ge=-(10**6), le=10**6)] = 300.0

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low >= self.high:
            raise SpecValueError("high", f"expected more than low = {self.low}, got {self.high}")
        return self


class FlipSpec(Spec):
    """Mirror along each axis, each with probability p. Not for left and right organs of different classes."""

    p: Share = 0.5
    axes: Axes = ("x", "y", "z")


class AffineSpec(Spec):
    """Turn about all three axes and scale, both uniformly up to these bounds."""

    p: Share = 0.2
    degrees: Annotated[float, Field(ge=0, le=180)] = 15.0
    scale: Annotated[float, Field(ge=0, le=0.5)] = 0.1


class IntensitySpec(Spec):
    """Multiply by 1 + up to `scale`, and add up to `shift` (in units after normalisation)."""

    p: Share = 0.3
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.1
    shift: Annotated[float, Field(ge=0, le=10)] = 0.1


class NoiseSpec(Spec):
    """Add normal noise of a deviation up to `std` (in units after normalisation)."""

    p: Share = 0.2
    std: Annotated[float, Field(ge=0, le=10)] = 0.1


class AugmentSpec(Spec):
    """Random changes of each patch; one that is not named is not made."""

    flip: FlipSpec | None = None
    affine: AffineSpec | None = None
    intensity: IntensitySpec | None = None
    noise: NoiseSpec | None = None


class ValidationSpec(Spec):
    """Which labelled studies a site keeps for its scores: by a hash of the study's id, never by order.

    A study stays on its side when others come. With `folds`, fold number `fold` of so many is kept.
    """

    share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    folds: Annotated[int, Field(ge=2, le=20)] | None = None
    fold: Annotated[int, Field(ge=0, le=19)] = 0
    split_seed: Annotated[int, Field(ge=0, le=2**31)] = 0
    overlap: Annotated[float, Field(ge=0, le=0.9)] = 0.25
    """Of the windows that slide over a study when it is scored."""

    @model_validator(mode="after")
    def _fold_is_one(self) -> Self:
        if self.folds is not None and self.fold >= self.folds:
            raise SpecValueError("fold", f"expected 0 to {self.folds - 1} with {self.folds} folds, got {self.fold}")
        return self


NetworkSpec = Annotated[
    UNetSpec | SegResNetSpec | DynUNetSpec, Field(discriminator="kind"), BeforeValidator(kind_from_text)
]
Normalisation = Annotated[
    ZScoreSpec | PercentileSpec | WindowSpec, Field(discriminator="kind"), BeforeValidator(kind_from_text)
]


class SegmentationConfig(Spec):
    """The whole `task_config`."""

    classes: Annotated[dict[str, str], BeforeValidator(_numbered), Field(min_length=1, max_length=MOST_CLASSES)]
    """A list of names of the label values 1, 2, ...; or names by value, {"1": kidney, "5": tumour}. 0 is background."""
    network: NetworkSpec = UNetSpec()
    patch_size: Sides = (96, 96, 96)
    """Voxels of a training patch along x (right), y (front) and z (up)."""
    spacing: Millimetres | None = None
    """Voxel size in mm that every study is brought to; null keeps each study's own."""
    intensity: Normalisation = ZScoreSpec()
    loss: Literal["dice_ce", "dice", "dice_focal"] = "dice_ce"
    augment: AugmentSpec = AugmentSpec()
    validation: ValidationSpec = ValidationSpec()
    foreground: Share = 0.67
    """Share of the patches whose middle is a labelled voxel."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    clip_norm: Annotated[float, Field(gt=0, le=10**6)] = 12.0
    """Length to which a step's gradient is cut."""

    @model_validator(mode="after")
    def _classes_are_numbered(self) -> Self:
        for key, name in self.classes.items():
            if not (key.isdecimal() and len(key) <= 3 and 1 <= int(key) <= 255):
                raise SpecValueError("classes", f"expected label values from 1 to 255 as keys, got {key[:20]!r}")
            if not CLASS_NAME.fullmatch(name):
                raise SpecValueError(f"classes.{key}", f"expected a name of letters and digits, got {name[:40]!r}")
        if len(set(self.classes.values())) < len(self.classes):
            raise SpecValueError("classes", "expected each name once")
        return self

    @model_validator(mode="after")
    def _network_fits_patch(self) -> Self:
        factor = self.network.factor
        if any(side % factor or side < 2 * factor for side in self.patch_size):
            text = (
                f"expected multiples of {factor}, at least {2 * factor}, for this network; got {list(self.patch_size)}"
            )
            raise SpecValueError("patch_size", text)
        if math.prod(self.patch_size) > MOST_PATCH_VOXELS:
            raise SpecValueError("patch_size", f"expected at most {MOST_PATCH_VOXELS:,} voxels")
        return self

    @property
    def names(self) -> dict[int, str]:
        """Class names by label value, in the order of the values."""
        return {int(key): self.classes[key] for key in sorted(self.classes, key=int)}


def read_config(given: Mapping[str, Any]) -> SegmentationConfig:
    """Validate a job's `task_config`; ContractError lists every problem with its path."""
    try:
        return SegmentationConfig.model_validate(_plain(given))
    except ValidationError as exc:
        problems = problems_of(exc, SegmentationConfig)
        said = "; ".join(f"task_config.{problem.path}: {problem.message}" for problem in problems)
        raise ContractError.of_job(said) from None


def _plain(value: Any) -> Any:
    """Read-only mappings and tuples of a job spec as dicts and lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
