"""Submitting a job: its spec as text, what `fedbus check` says of it as it is written, and what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fedbus.core.job.spec_sites import KnownSite, Prospect, prospect
from fedbus.core.spec import kinds
from fedbus.core.spec.head import JobSpec
from fedbus.core.spec.outline import outline
from fedbus.core.spec.text import MAX_TEXT_BYTES
from fedbus.errors import FedbusError, JobSpecError, Problem, UnansweredError
from fedbus.web.pages.seam import Asked, Goto, Shown, Source

FIRST = "training"
EXAMPLES = Path(__file__).parents[1] / "examples"
_NOT_CHECKED = "whether the sites that are here could take it is not known: the aggregator does not answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a spec will be, or every problem with the path of its key; who could take it, None: not known."""

    problems: Sequence[Problem] = ()
    lines: Sequence[tuple[str, str]] = ()
    sites: Prospect | None = None
    remark: str = ""

    @property
    def good(self) -> bool:
        return not self.problems


@cache
def examples() -> dict[str, str]:
    """Specs to begin with, by name."""
    return {file.stem: file.read_text("utf-8") for file in sorted(EXAMPLES.glob("*.yaml"))}


async def form(source: Source, asked: Asked) -> Shown:
    """The form, with the example that `?example=` names, or the spec of the job `?like=`."""
    if like := asked.query.get("like", ""):
        import yaml

        detail = await source.job(like[:80])
        text = yaml.safe_dump(dict(detail.spec), sort_keys=False, allow_unicode=True)
    else:
        text = examples().get(asked.query.get("example", FIRST), "")
    return _shown(text, await _verdict(source, text))


async def check(source: Source, asked: Asked) -> Shown:
    """What `fedbus check --sites` says of the text."""
    text = _text(asked)
    verdict = await _verdict(source, text)
    if asked.part:
        return Shown(template="verdict.html", context={"verdict": verdict})
    return _shown(text, verdict)


async def submit(source: Source, asked: Asked) -> Shown | Goto:
    """Publish it, as `fedbus submit` does; the same errors at the same paths where it cannot be."""
    text = _text(asked)
    try:
        job = await source.submit(kinds.parse_yaml(text), note=lambda note: None)
    except JobSpecError as exc:
        return _shown(text, Verdict(problems=exc.problems), status=422)
    except UnansweredError as exc:
        return _shown(text, await _verdict(source, text), trouble=str(exc), status=503)
    return Goto(path=f"/jobs/{job}")


def _text(asked: Asked) -> str:
    return asked.form.get("spec", "")[: MAX_TEXT_BYTES + 1].replace("\r\n", "\n")


async def _verdict(source: Source, text: str) -> Verdict:
    try:
        spec = kinds.parse_yaml(text)
    except JobSpecError as exc:
        return Verdict(problems=exc.problems)
    lines = outline(spec)
    try:
        return Verdict(lines=lines, sites=await _prospect(source, spec))
    except FedbusError:
        return Verdict(lines=lines, remark=_NOT_CHECKED)


async def _prospect(source: Source, spec: JobSpec) -> Prospect:
    known = [KnownSite(name=line.site, state=line.state, tasks=line.tasks) for line in await source.sites()]
    return prospect(spec, known)


def _shown(text: str, verdict: Verdict, *, trouble: str = "", status: int = 200) -> Shown:
    context = {
        "page": "submit",
        "title": "Submit a job",
        "text": "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text),
        "verdict": verdict,
        "examples": list(examples()),
        "trouble": trouble,
    }
    return Shown(template="submit.html", context=context, status=status)
