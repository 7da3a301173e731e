"""Images and masks: units, scales, orientation, masks that are empty or lie the wrong way round."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fedbus.core.check.compare import apart, apart_by, enough, said, share, surely, times, unit_of
from fedbus.core.protocol.statistics import AXES, Distribution, Finding, Images, Statistics

IMPOSSIBLE_MM = (0.02, 50.0)
"""Between voxels: a microscope is finer, no scanner is coarser."""
SPACING = 3.0
INTENSITY = 8.0
VOLUME = 5.0
CENTRE = 0.12
"""Of the image's length: the centre of a class lies so far from where it lies at the others."""
EMPTY = 0.1
HARMLESS = frozenset({"no-label", "macos-file"})
"""Problems that every folder may have: studies that are not annotated yet, what macOS wrote beside a file."""


def of_images(sites: Mapping[str, Statistics]) -> Iterator[Finding]:
    """Findings on images and their masks."""
    having = {site: found.images for site, found in sites.items() if found.images is not None}
    yield from _spacing(having)
    yield from _intensity(having)
    for what, field in (("the data type", "dtypes"), ("the orientation", "orientations")):
        yield from _habit(what, {site: dict(getattr(images, field)) for site, images in having.items()})
    for site, found in sites.items():
        yield from _problems(site, found)
        yield from _mirrored(site, found)
    yield from _empty(sites)
    yield from _regions(sites)


def _spacing(having: Mapping[str, Images]) -> Iterator[Finding]:
    middle = {site: _typical(images.spacing) for site, images in having.items()}
    known = {site: value for site, value in middle.items() if value is not None}
    figure = ", ".join(f"{site}: {value:g} mm" for site, value in known.items())
    impossible = [site for site, value in known.items() if not IMPOSSIBLE_MM[0] <= value <= IMPOSSIBLE_MM[1]]
    for site in impossible:
        yield Finding(
            kind="spacing-unit",
            severity="fault",
            sites=(site,),
            text=f"the voxels of {site} are {known[site]:g} mm apart: that is another unit",
            figure=figure,
            advice="write the spacing in mm: times 1000 from metres, times 10 from cm, by 1000 from micrometres",
        )
    found = apart({site: value for site, value in known.items() if site not in impossible}, factor=SPACING)
    if found is not None:
        unit = unit_of(found.ratio)
        yield Finding(
            kind="spacing-unit" if unit else "spacing",
            severity="fault" if unit and found.named else "warning",
            sites=found.sites,
            text=_apart_words("spacing", found.sites, found.ratio, named=found.named),
            figure=figure,
            advice="another unit in the headers?" if unit else "resample in the job: task_config.spacing",
        )


def _intensity(having: Mapping[str, Images]) -> Iterator[Finding]:
    bright = {site: images.intensity["p99"] for site, images in having.items() if "p99" in images.intensity}
    known = {site: value for site, found in bright.items() if (value := found.median) is not None}
    found = apart(known, factor=INTENSITY)
    if found is not None and surely(found, bright, unless_known=True):
        unit = unit_of(found.ratio) if found.named else None
        yield Finding(
            kind="intensity-scale",
            severity="warning" if unit else "notice",
            sites=found.sites,
            text=_apart_words("intensity scale", found.sites, found.ratio, named=found.named),
            figure="99th percentiles " + ", ".join(f"{site}: {value:g}" for site, value in known.items()),
            advice="normalise each image by itself (z-score or percentiles); a window in fixed units would be wrong",
        )


def _apart_words(what: str, sites: tuple[str, ...], ratio: float, *, named: bool) -> str:
    if named:
        return f"{sites[0]} has another {what}: {times(ratio)} the others'"
    return f"{', '.join(sites)} differ in {what}, by up to {ratio:,.3g} times"


def _habit(what: str, counts: Mapping[str, Mapping[str, int | None]]) -> Iterator[Finding]:
    """Which value most of a site's images have, where the other sites agree on another one."""
    usual = {site: max(found, key=lambda key: found[key] or 0) for site, found in counts.items() if found}
    for site, word in usual.items():
        others = {theirs for other, theirs in usual.items() if other != site}
        if len(usual) > 2 and len(others) == 1 and word not in others:
            yield Finding(
                kind=what.removeprefix("the ").replace(" ", "-"),
                severity="notice",
                sites=(site,),
                text=f"{what} of most images at {site} is {word}, elsewhere {next(iter(others))}",
            )


def _problems(site: str, found: Statistics) -> Iterator[Finding]:
    for kind, count in found.problems.items():
        if count == 0:
            continue
        part = share(count, found.examples)
        yield Finding(
            kind=f"problem-{kind}",
            severity="notice" if kind in HARMLESS else "fault" if part >= 0.2 or not found.examples else "warning",
            sites=(site,),
            text=f"{site} has what cannot be used: {kind.replace('-', ' ')}",
            figure=f"{said(count)} of {said(found.examples)}" if found.examples else "nothing could be read",
            advice="the log of this site names each of them",
        )


def _mirrored(site: str, found: Statistics) -> Iterator[Finding]:
    fits = () if found.masks is None else found.masks.fits
    for axis, fit in zip(AXES, fits, strict=False):
        middle, high = fit.median, fit.quantiles[3]
        if middle is not None and middle < 0 and (high is None or high < 0):
            yield Finding(
                kind="mirrored-masks",
                severity="fault",
                sites=(site,),
                text=f"the masks of {site} lie the wrong way round, {axis}: mirrored they fit their images better",
                figure=f"fit {middle:.3g} in the median of {said(fit.count)} masks, above 0 is right",
                advice="flip the masks along this axis, or correct the orientation in their headers",
            )


def _empty(sites: Mapping[str, Statistics]) -> Iterator[Finding]:
    shares = {site: share(found.masks.empty, found.examples) for site, found in sites.items() if found.masks}
    for site, part in shares.items():
        others = [value for other, value in shares.items() if other != site]
        if part >= EMPTY and (not others or part > 2 * max(others)):
            masks = sites[site].masks
            yield Finding(
                kind="empty-masks",
                severity="warning",
                sites=(site,),
                text=f"many masks of {site} are empty",
                figure=f"{said(masks.empty if masks else 0)} of {said(sites[site].examples)}"
                + (f"; elsewhere {min(others):.0%} to {max(others):.0%}" if others else ""),
                advice="are they not annotated yet? then leave them out: they would be learnt as healthy",
            )


def _regions(sites: Mapping[str, Statistics]) -> Iterator[Finding]:
    masks = {site: found.masks.regions for site, found in sites.items() if found.masks is not None}
    for value in sorted({value for regions in masks.values() for value in regions}):
        regions = {
            site: found[value] for site, found in masks.items() if value in found and enough(found[value].studies)
        }
        volumes = {site: middle for site, region in regions.items() if (middle := region.volume.median) is not None}
        found = apart(volumes, factor=VOLUME)
        if found is not None and surely(found, {site: regions[site].volume for site in regions}, unless_known=True):
            yield Finding(
                kind="class-volume",
                severity="warning" if found.named else "notice",
                sites=found.sites,
                text=_apart_words(f"volume of class {value}", found.sites, found.ratio, named=found.named),
                figure=", ".join(f"{site}: {volume:g} ml" for site, volume in volumes.items()),
                advice="another unit of spacing, another structure, or contours drawn differently?",
            )
        for at, axis in enumerate(AXES):
            places = {site: region.centre[at] for site, region in regions.items() if len(region.centre) > at}
            centres = {site: middle for site, place in places.items() if (middle := place.median) is not None}
            moved = apart_by(centres, far=CENTRE)
            if moved is not None and moved.named and surely(moved, places, unless_known=False):
                yield Finding(
                    kind="class-place",
                    severity="warning",
                    sites=moved.sites,
                    text=f"class {value} lies elsewhere at {moved.sites[0]}, {axis}",
                    figure=", ".join(f"{site}: {centre:.2f}" for site, centre in centres.items()),
                    advice="are images or masks flipped, classes exchanged, or is another part of the body shown?",
                )


def _typical(spacing: tuple[Distribution, ...]) -> float | None:
    """The middle one of the three axes: slices may be far apart."""
    middles = sorted(middle for spread in spacing if (middle := spread.median) is not None)
    return middles[len(middles) // 2] if middles else None
