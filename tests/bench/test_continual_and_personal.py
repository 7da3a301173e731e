"""The benchmarks of continued training and of private heads: every way is measured, and the plain facts hold."""

from __future__ import annotations

from dataclasses import replace

from fedbus.bench import continual, personal


def silent(text: str) -> None:
    """Nobody looks on."""


def test_new_images_of_two_classes_alone_make_a_model_worse_than_before() -> None:
    setting = replace(continual.DIGITS, versions=20, kinds=("two classes",))
    rows = continual.rows(setting, data=None, seeds=1, say=silent)
    found = {row["case"].partition(": ")[2].removesuffix(": accuracy"): row["value"] for row in rows}
    assert len(found) == 6
    assert found["new only, on old weights"] < found["old data only"] < found["old and new, on old weights"] + 0.05


def test_a_head_of_its_own_serves_hospitals_that_ask_the_opposite() -> None:
    rows = personal.rows(seeds=1, say=silent, scenarios=["opposite"])
    found = {row["case"]: row["value"] for row in rows}
    one, heads = (found[f"opposite, {way}, all by test patients: AUC"] for way in personal.WAYS[1:])
    assert heads > one + 0.1
