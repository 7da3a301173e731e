"""The published schemas say what fedbus itself says: the same files are valid, the same keys are wrong."""

from __future__ import annotations

import copy
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbus.contract.spec_schemas import SCHEMAS, as_json
from fedbus.core.spec import kinds
from fedbus.core.spec.site_policy import parse_policy
from fedbus.core.spec.text import load_yaml
from fedbus.errors import JobSpecError, SettingsError
from fedbus.provision.federation_file import FederationFile
from fedbus.provision.texts import policy_text

ROOT = Path(__file__).parents[2]
VALIDATORS = {name: jsonschema.Draft7Validator(make()) for name, make in SCHEMAS.items()}
LOCAL = {"steps": 20, "batch_size": 16, "learning_rate": 0.1}
TRAINING = {"name": "heart", "task": "heart_disease", "local": LOCAL, "stop": {"versions": 4}}
SHORT = TRAINING | {
    "strategy": "buffered",
    "staleness": "constant",
    "robust": "multi_krum",
    "min_sites": 7,
    "server_optimizer": "adam",
    "codec": {"up": "topk"},
    "continues": "heart-0c1d2e3f",
    "sites": [f"site-{n}" for n in range(7)],
    "stop": {"patience": 10, "target": {"metric": "auc", "at_least": 0.8}},
}
EVALUATE = {
    "kind": "evaluate",
    "name": "which",
    "task": "heart_disease",
    "models": [{"job": "heart-0c1d2e3f", "version": "best"}, {"file": "a.safetensors"}],
    "compare": True,
}
CHECK = {"kind": "data-check", "name": "look", "task": "heart_disease", "minimum": 10}
SPECS = [TRAINING, SHORT, EVALUATE, CHECK]
WHOLE = [*SPECS, *(kinds.parse(spec).to_dict() for spec in SPECS)]
JUNK = st.sampled_from([None, True, "", "what", -1, 0, 1, 7, 2.5, 10**16, [], ["a", "a"], {}, {"kind": "nothing"}])


def problems(name: str, data: Any) -> set[str]:
    """Paths at which the schema finds something wrong, those inside of choices too."""
    return set(_paths(VALIDATORS[name].iter_errors(data)))


def _paths(errors: Any) -> Iterator[str]:
    for error in errors:
        path = list(map(str, error.absolute_path))
        keys: list[str] = []
        if error.validator == "required":
            keys = [key for key in error.validator_value if key not in error.instance]
        elif error.validator == "additionalProperties":
            keys = [key for key in error.instance if key not in error.schema["properties"]]
        yield from (".".join([*path, key]) for key in keys)
        yield ".".join(path)
        yield from _paths(error.context)


def found_by_fedbus(spec: Any) -> set[str]:
    try:
        kinds.parse(spec)
    except JobSpecError as exc:
        return {problem.path for problem in exc.problems}
    return set()


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key and item below a value."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in pairs:
        yield (*above, key)
        yield from places(one, (*above, key))


@st.composite
def mutated(draw: st.DrawFn) -> tuple[dict[str, Any], tuple[Any, ...]]:
    """A valid spec in which one place has another value, is gone, or has a key beside it that is unknown."""
    spec = copy.deepcopy(draw(st.sampled_from(WHOLE)))
    *above, last = place = draw(st.sampled_from(sorted(places(spec), key=str)))
    section: Any = spec
    for key in above:
        section = section[key]
    match draw(st.sampled_from(["change", "drop", "add"])):
        case "add" if isinstance(section, dict) and "task_config" not in above:
            section["colour"] = "blue"
            return spec, (*above, "colour")
        case "drop" if isinstance(section, dict):
            del section[last]
        case _:
            section[last] = draw(JUNK)
    return spec, place


def near(path: str, others: set[str]) -> bool:
    """Whether one of the others is the same place: a section in short form and its `kind` are."""
    return any(path == other or path.startswith(f"{other}.") or other.startswith(f"{path}.") for other in others)


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_published_schema_is_current(name: str) -> None:
    published = (ROOT / f"deploy/{name}.schema.json").read_text("utf-8")
    assert published == as_json(name), f"fedbus schema {name} > deploy/{name}.schema.json"
    jsonschema.Draft7Validator.check_schema(json.loads(published))


@pytest.mark.parametrize("path", sorted((ROOT / "deploy/jobs").glob("*.yaml")), ids=lambda path: path.name)
def test_jobs_to_begin_with_are_valid(path: Path) -> None:
    assert problems("job", load_yaml(path.read_text("utf-8"))) == set()


def test_jobs_of_the_pages_are_valid() -> None:
    jobs = [
        load_yaml(text)
        for page in (ROOT / "deploy/docs").glob("*.md")
        for text in re.findall(r"```yaml\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
        if re.search("^task:", text, re.MULTILINE)
    ]
    assert len(jobs) > 5
    assert [problems("job", {"name": "a"} | job) for job in jobs if isinstance(job, dict)] == [set()] * len(jobs)


@settings(max_examples=200)
@given(mutated())
def test_what_the_schema_refuses_fedbus_refuses_at_the_same_place(case: tuple[dict[str, Any], tuple[Any, ...]]) -> None:
    spec, _ = case
    refused, ours = problems("job", spec), found_by_fedbus(spec)
    if refused:
        assert ours, f"{spec}\nthe schema refuses {refused}"
        assert any(near(path, refused - {""}) or path in refused for path in ours), f"{ours} and {refused}: {spec}"


FAR_APART = re.compile(
    r"(strategy(\.(k|buffer|kind))?|staleness|initial_params|evaluate_local|min_sites|min_contributors|robust.*)"
)


@settings(max_examples=200)
@given(mutated())
def test_a_key_that_is_wrong_by_itself_is_wrong_in_both(case: tuple[dict[str, Any], tuple[Any, ...]]) -> None:
    spec, place = case
    ours, refused = found_by_fedbus(spec), problems("job", spec)
    by_itself = {path for path in ours if path == ".".join(map(str, place)) and not FAR_APART.fullmatch(path)}
    if by_itself and not refused:
        raise AssertionError(f"fedbus refuses {by_itself}, the schema nothing: {spec}")


def test_a_federation_and_a_policy() -> None:
    federation = {
        "federation": "hearts",
        "broker": {"host": "broker.example.org", "version": "4.x"},
        "sites": ["cleveland", "hungary"],
    }
    FederationFile.parse(yaml.safe_dump(federation), where="here")
    assert problems("federation", federation) == set()
    for wrong, path in (
        (federation | {"sites": ["Cleveland"]}, "sites.0"),
        (federation | {"broker": {"host": "h", "port": 0}}, "broker.port"),
        (federation | {"colour": "blue"}, "colour"),
    ):
        with pytest.raises(SettingsError, match=re.escape(path)):
            FederationFile.parse(yaml.safe_dump(wrong), where="here")
        assert path in problems("federation", wrong)


def test_the_policy_that_a_kit_brings() -> None:
    text = policy_text("cleveland")
    opened = re.sub(r"^# (\[tasks|data|\")", r"\1", text, flags=re.MULTILINE)
    for policy in map(tomllib.loads, (text, opened)):
        assert not isinstance(parse_policy(policy), list)
        assert problems("policy", policy) == set()
        wrong = policy | {"hours": {"zone": "UTC", "open": ["monday 9-5"]}, "colour": "blue"}
        assert {"hours.open.0", "colour"} <= problems("policy", wrong)
    assert tomllib.loads(opened)["tasks"]
