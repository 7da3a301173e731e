"""The reference of all keys: made from the classes, so it says what is true of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedbus.core.spec.reference import WIDTH, as_markdown, as_text, keys
from fedbus.core.spec.training import TrainingSpec

PAGE = Path(__file__).parents[2] / "deploy" / "docs" / "job-spec.md"


def numbers(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every number in the classes, with where it stands."""
    if schema.get("type") in ("integer", "number"):
        yield path, schema
    for name, inner in schema.items():
        for part in inner if isinstance(inner, list) else [inner]:
            if isinstance(part, dict) and name not in ("default", "discriminator"):
                yield from numbers(part, f"{path}.{name}")


def test_the_page_says_what_the_classes_say():
    assert PAGE.read_text() == as_markdown(), f"make it anew: python -m fedbus.core.spec.reference > {PAGE.name}"


def test_every_key_of_a_job_has_a_sentence_and_fits_a_terminal():
    assert [key.name for key in keys() if not key.sentence] == []
    assert max(map(len, as_text().splitlines())) <= WIDTH


def test_every_key_of_the_full_spec_is_in_the_reference():
    spec = TrainingSpec.parse(
        {
            "name": "heart",
            "task": "heart_disease",
            "local": {"steps": 1, "batch_size": 1, "learning_rate": 1},
            "stop": {"versions": 1, "patience": 3, "target": {"metric": "auc", "at_least": 1}},
        }
    )

    def paths(data: dict[str, Any], above: str = "") -> set[str]:
        below = (paths(value, f"{above}{key}.") for key, value in data.items() if isinstance(value, dict))
        return {f"{above}{key}" for key in data}.union(*below)

    assert paths(spec.to_dict()) <= {key.path for key in keys()}


@pytest.mark.parametrize(
    ("path", "kind", "type", "default"),
    [
        ("local.batch_size", "", "whole number from 1 to 10^6", "required"),
        ("local.learning_rate", "", "number above 0 up to 10^6", "required"),
        ("strategy", "", "one of auto, buffered, calibrated, fedasync, sync, or a mapping", "auto"),
        ("strategy.deadline_s", "sync", "number above 0 up to 10^8", "60.0"),
        ("server_optimizer.lr", "", "number above 0 up to 10^6 or auto", "auto"),
        ("seed", "", "whole number from 0 to below 2^63", "0"),
        ("sites", "", "list of text", "null"),
    ],
)
def test_type_range_and_default_are_said_in_plain_words(path, kind, type, default):
    (key,) = (key for key in keys() if (key.path, key.kind) == (path, kind))

    assert (key.type, key.default) == (type, default)


def test_every_number_has_a_lower_and_an_upper_bound():
    found = dict(numbers(TrainingSpec.model_json_schema()))

    assert len(found) > 40
    unbounded = [
        path
        for path, schema in found.items()
        if not {"minimum", "exclusiveMinimum"} & set(schema) or not {"maximum", "exclusiveMaximum"} & set(schema)
    ]
    assert unbounded == []
