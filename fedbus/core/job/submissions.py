"""Whether what a site is offered is what its submitter has signed. Signatures are checked elsewhere, see `bus.guard`.

a job            the signed text is the offered spec, and the job's id follows from the submit
a follow-up      the signed text is that of the job that it follows, which asks for it: `evaluate_local`; it is the
                 very job that the aggregator makes then, of models of that job alone
"""

from __future__ import annotations

from fedbus.core.protocol.messages import JOB_HEADER, JobOffer, SignedSubmission, id_of_submit
from fedbus.core.spec import kinds
from fedbus.core.spec.cross_site import NAME
from fedbus.core.spec.evaluate import EvaluateSpec
from fedbus.core.spec.head import JobSpec
from fedbus.core.spec.text import load_json
from fedbus.core.spec.training import TrainingSpec
from fedbus.errors import JobSpecError


def not_as_submitted(offer: JobOffer, submission: SignedSubmission) -> str:
    """Why the offer is not what was submitted; empty when it is."""
    try:
        offered = kinds.parse(offer.spec)
        submitted = _parse(offer, submission)
    except (JobSpecError, ValueError, RecursionError) as exc:
        return f"the signed job spec, or the offered one, cannot be read here: {exc}"
    job = offer.follows or offer.job
    named = submission.headers.get(JOB_HEADER) or id_of_submit(submitted.name, submission.message_id)
    if named != job:
        return f"the signed submit is that of job {named}, not of {job}"
    if offer.follows:
        return _not_following(offer.follows, submitted, offered)
    return "" if submitted.to_offer() == offered.to_offer() else "the offered job spec is not the signed one"


def _parse(offer: JobOffer, submission: SignedSubmission) -> JobSpec:
    """Keys that this release does not know and that are not offered say nothing new: the submitter's is a later one."""
    said = load_json(submission.body.encode())
    if not isinstance(said, dict):
        raise ValueError("it is no JSON object")
    kind = kinds.KINDS.get(str(said.get("kind", kinds.TRAINING)))
    known = offer.spec if kind is None else {*offer.spec, *kind.model_fields}
    return kinds.parse({key: value for key, value in said.items() if key in known})


def _not_following(follows: str, before: JobSpec, offered: JobSpec) -> str:
    if not isinstance(before, TrainingSpec) or not before.evaluate_local or not isinstance(offered, EvaluateSpec):
        return f"job {follows} asks for no job after it"
    expected = EvaluateSpec.parse(
        {
            "kind": "evaluate",
            "name": NAME,
            "task": before.task,
            "task_config": offered.to_dict()["task_config"],
            "seed": before.seed,
            "sites": offered.sites,
            "models": offered.to_dict()["models"],
        }
    )
    same = expected == offered and expected.task_config == before.task_config
    theirs = all(model.job == follows for model in offered.models)
    inside = before.sites is None or set(offered.sites or ()) <= set(before.sites)
    return "" if same and theirs and inside else f"this is not the job that follows {follows}"
