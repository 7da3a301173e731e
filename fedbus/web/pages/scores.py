"""Every model at every site: the cross-site matrix of a job that evaluates, or of the one that followed a training."""

from __future__ import annotations

from fedbus.console.comparing import follow_up_of, scored_across
from fedbus.console.outcome import models_of
from fedbus.console.report.evaluate import evaluate_sections
from fedbus.console.report.job import kind_of
from fedbus.console.report.training import training_sections
from fedbus.core.protocol.answers import JobDetail
from fedbus.web.pages.seam import Asked, Goto, Shown, Source


async def page(source: Source, asked: Asked) -> Shown:
    """What the sites measured."""
    detail = await source.job(asked.path["job"])
    scored = detail if models_of(detail) else await follow_up_of(source, detail)
    sections = [] if scored is None else list(evaluate_sections(scored, ()))
    own = [] if models_of(detail) else list(training_sections(detail, await source.history(detail.job)))
    context = {
        "page": "jobs",
        "tab": "scores",
        "title": f"Scores of {detail.name or detail.job}",
        "detail": detail,
        "scored_in": None if scored is None or scored.job == detail.job else scored.job,
        "sections": [*sections, *own],
        "can_score": asked.may_submit and _has_a_model(detail),
    }
    return Shown(template="sections.html", context=context)


def _has_a_model(detail: JobDetail) -> bool:
    return kind_of(detail) == "training" and detail.ended_at is not None and bool(detail.version)


async def score(source: Source, asked: Asked) -> Goto:
    """Let every site score the models that a training has left, in a job of its own."""
    spec, _ = await scored_across(source, asked.path["job"])
    return Goto(path=f"/jobs/{await source.submit(spec, note=lambda text: None)}")
