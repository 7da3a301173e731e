"""A site's own policy: what it takes part in, and why not."""

from typing import Any

import pytest

from fedbus.core.job.policy import Accept, Decline, SitePolicy
from fedbus.core.spec.training import TrainingSpec

POLICY = SitePolicy(
    site="va",
    installed_tasks=frozenset({"digits", "heart"}),
    allowed_tasks=frozenset({"heart", "old"}),
    min_batch_size=8,
)


def offer(**changes: Any) -> dict[str, Any]:
    local = {"steps": 1, "batch_size": 32, "learning_rate": 0.1}
    return {"name": "job", "task": "heart", "local": local, "stop": {"versions": 1}} | changes


def test_an_allowed_job_is_accepted() -> None:
    spec = TrainingSpec.parse(offer(sites=["mercy", "va"]))

    assert POLICY.decide(spec) == Accept(spec=spec)
    assert POLICY.decide_offer(spec.to_dict()) == Accept(spec=spec)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"task": "brain"}, "task 'brain' is not installed here; installed: digits, heart"),
        ({"task": "old"}, "task 'old' is not installed here; installed: digits, heart"),
        ({"task": "digits"}, "task 'digits' is not allowed here; allowed: heart"),
        ({"sites": ["mercy", "ucsf"]}, "the job is for mercy, ucsf, not for va"),
        (
            {"local": {"steps": 1, "batch_size": 4, "learning_rate": 0.1}},
            "batch_size 4 is below this site's minimum of 8",
        ),
    ],
)
def test_a_decline_gives_its_reason(changes: dict[str, Any], reason: str) -> None:
    assert POLICY.decide_offer(offer(**changes)) == Decline(reason=reason)


def test_an_offer_that_cannot_be_read_is_declined() -> None:
    answer = POLICY.decide_offer(offer(quantum=True))

    assert isinstance(answer, Decline)
    assert answer.reason.startswith("this version of fedbus cannot read the job spec: quantum: unknown key")


@pytest.mark.parametrize(
    ("allowed", "tasks"),
    [(None, ("digits", "heart")), (frozenset({"heart", "old"}), ("heart",)), (frozenset[str](), ())],
)
def test_tasks_are_those_installed_and_allowed(allowed: frozenset[str] | None, tasks: tuple[str, ...]) -> None:
    policy = SitePolicy(site="va", installed_tasks=frozenset({"digits", "heart"}), allowed_tasks=allowed)

    assert policy.tasks == tasks
