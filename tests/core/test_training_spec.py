"""Job specs: what is accepted, what is refused and how that is said."""

import json
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fedbus.core.spec.training import ServerOptimizerSpec, SyncSpec, TrainingSpec
from fedbus.errors import JobSpecError

LOCAL = {"steps": 40, "batch_size": 32, "learning_rate": 0.01}
MINIMAL = {"name": "heart", "task": "heart_disease", "local": LOCAL, "stop": {"versions": 5}}


def problems(data: object) -> dict[str, str]:
    with pytest.raises(JobSpecError) as caught:
        TrainingSpec.parse_yaml(data) if isinstance(data, str) else TrainingSpec.parse(data)
    return {problem.path: problem.message for problem in caught.value.problems}


def documented_example() -> str:
    import fedbus.core.spec.training as module

    assert module.__doc__ is not None
    return module.__doc__.partition("shown here:\n")[2]


def test_the_documented_example_shows_the_real_defaults() -> None:
    documented = TrainingSpec.parse_yaml(documented_example())

    minimal = documented.to_dict()
    required = {key: minimal[key] for key in ("name", "task", "stop", "local", "task_config")}
    required["local"] = {key: minimal["local"][key] for key in ("steps", "batch_size", "learning_rate")}
    required["stop"] = {"versions": minimal["stop"]["versions"]}
    assert TrainingSpec.parse(required) == documented


def test_a_spec_survives_json() -> None:
    spec = TrainingSpec.parse(
        MINIMAL
        | {
            "task_config": {"layers": [1, 2, {"x": None}], "name": "é"},
            "sites": ["mercy", "va"],
            "strategy": {"kind": "sync", "k": 2},
            "staleness": {"kind": "hinge"},
            "stop": {"target": {"metric": "auc", "at_least": 0.8}, "patience": 10},
        }
    )

    assert TrainingSpec.parse(json.loads(json.dumps(spec.to_dict()))) == spec


def test_a_spec_cannot_be_changed() -> None:
    config = {"layers": [1, 2]}
    spec = TrainingSpec.parse(MINIMAL | {"task_config": config})

    config["layers"].append(3)

    assert spec.task_config["layers"] == (1, 2)
    assert isinstance(spec.task_config, MappingProxyType)
    with pytest.raises(ValidationError):
        spec.seed = 3


def test_time_boxes_need_a_budget_in_steps() -> None:
    found = problems(MINIMAL | {"local": {"seconds": 5.0, "time_boxed": True, "batch_size": 8, "learning_rate": 0.1}})

    assert list(found) == ["local"]
    assert "time_boxed needs the budget in steps" in found["local"]


def test_every_problem_is_reported_with_its_path() -> None:
    found = problems(
        {
            "name": "Heart Disease",
            "min_sites": "2",
            "local": {"steps": 1, "epochs": 2, "batch_size": 1.5, "learning_rate": float("nan")},
            "strategy": {"kind": "sync", "k": 0},
            "codec": {"up": "int9"},
            "stop": {},
            "sites": ["a", "B"],
            "task_config": {"a": {"b": {1, 2}}},
        }
    )

    assert found == {
        "name": "name 'Heart Disease' must be 1 to 40 of a-z, 0-9 and '-': it is used in routing keys",
        "task": "is required",
        "min_sites": "expected a whole number, got '2' (text)",
        "local": "give exactly one of steps, epochs, seconds; got steps and epochs",
        "local.batch_size": "expected a whole number, got 1.5",
        "local.learning_rate": "expected a finite number, got nan",
        "strategy.k": "must be greater than or equal to 1; got 0",
        "codec.up.kind": "expected one of fp32, fp16, bf16, int8, int4, topk; got 'int9' (text)",
        "stop": "give at least one of versions, updates, wall_time_s, target, patience",
        "sites.1": "site 'B' must be 1 to 40 of a-z, 0-9 and '-': it is used in routing keys",
        "task_config": "a.b must be text, a number, true or false, null, a list or a mapping; got {1, 2}",
    }


@pytest.mark.parametrize(
    ("changes", "path", "message"),
    [
        ({"colour": 1}, "colour", "unknown key; known here: check, chunk_bytes, "),
        ({"seeds": 1}, "seeds", "unknown key; did you mean 'seed'?"),
        (
            {"local": LOCAL | {"evaluate": False}, "stop": {"target": {"metric": "auc", "at_least": 0.9}}},
            "local.evaluate",
            "is false, and only scores could end this job",
        ),
        ({"steps": 1}, "steps", "unknown key here; it belongs at local.steps"),
        ({"local": LOCAL | {"batch_siz": 1}}, "local.batch_siz", "unknown key; did you mean 'batch_size'?"),
        (
            {"strategy": {"kind": "sync", "mixing": 1}},
            "strategy.mixing",
            "is no key of kind 'sync'; known here: deadline_s, k, kind",
        ),
        (
            {"strategy": {"buffer": 3}},
            "strategy.kind",
            "is required: one of auto, buffered, calibrated, fedasync, sync",
        ),
        (
            {"strategy": "fedbuf"},
            "strategy.kind",
            "expected one of auto, buffered, calibrated, fedasync, sync; got 'fedbuf' (text)",
        ),
        ({"strategy": 3}, "strategy", "expected a mapping of keys to values, got 3"),
        ({"local": LOCAL | {"steps": None}}, "local", "give exactly one of steps, epochs, seconds; got none of them"),
        (
            {"stop": {"target": {"metric": "auc", "at_least": 1, "at_most": 2}}},
            "stop.target",
            "give exactly one of at_least, at_most; got at_least and at_most",
        ),
        (
            {"server_optimizer": {"lr": "fast"}},
            "server_optimizer.lr",
            "expected a number, got 'fast' (text); or expected one of auto; got 'fast' (text)",
        ),
        (
            {"server_optimizer": {"lr": -1}},
            "server_optimizer.lr",
            "must be greater than 0; got -1; or expected one of auto",
        ),
        ({"sites": "va"}, "sites", "expected a list, got 'va' (text)"),
        ({"sites": ["va", "va"]}, "sites", "name at least one site, and each site once"),
        ({"sites": ["va"], "min_sites": 2}, "min_sites", "is 2, but sites lists only 1"),
        ({"sites": ["va"], "strategy": {"kind": "sync", "k": 2}}, "strategy.k", "is 2, but sites lists only 1"),
        ({"initial_params": "../etc/passwd"}, "initial_params", "give the name of a file"),
        ({"seed": True}, "seed", "expected a whole number, got true"),
        ({"chunk_bytes": 1024}, "chunk_bytes", "must be greater than or equal to 262144; got 1024"),
        (
            {"strategy": {"kind": "buffered", "normalise": "buffer", "rate_correction": 1}},
            "strategy",
            "rate_correction",
        ),
        ({4: 5}, "4", "keys are text; put 4 in quotes"),
        ({"task_config": {"a": [2**63]}}, "task_config", "a.0 must fit in 64 bits"),
        ({"task_config": {"a": -(2**63) - 1}}, "task_config", "a must fit in 64 bits"),
    ],
)
def test_a_problem_is_said_in_plain_words(changes: dict[str, object], path: str, message: str) -> None:
    found = problems(MINIMAL | changes)

    assert list(found) == [path]
    assert found[path].startswith(message)


@pytest.mark.parametrize("data", [None, [], "text: [", 3])
def test_what_is_no_mapping_is_refused(data: object) -> None:
    assert list(problems(data)) == [""]


def test_a_yaml_syntax_error_names_its_line() -> None:
    assert problems("name: a\nlocal: [1, 2\nstop: 3")[""].startswith("line 3, column 5: no valid YAML: ")


@pytest.mark.parametrize(
    "text", ["a: 2024-13-45", "!!python/object:os.system {}", "[" * 5000, "a: 1\n- 2", "\x00", "x" * 2_000_000]
)
def test_hostile_yaml_is_a_problem_and_no_crash(text: str) -> None:
    assert list(problems(text)) == [""]


def test_an_alias_bomb_is_refused() -> None:
    layers = "\n".join(f"  l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, 12))

    found = problems(f"task_config:\n  l0: &l0 [1]\n{layers}")

    assert "over 100000 values" in found["task_config"]


def test_yaml_numbers_without_a_dot_are_numbers() -> None:
    spec = TrainingSpec.parse_yaml(json.dumps(MINIMAL).replace("0.01", "1e-3"))

    assert spec.local.learning_rate == 0.001


def test_a_rule_can_be_named_in_short() -> None:
    spec = TrainingSpec.parse(MINIMAL | {"strategy": "sync", "server_optimizer": "adam"})

    assert spec.strategy == SyncSpec(k=None, deadline_s=60.0)
    assert spec.server_optimizer == ServerOptimizerSpec(kind="adam", lr=0.01)


@pytest.mark.parametrize(
    ("target", "metric", "better"),
    [
        (None, "loss", "lower"),
        ({"metric": "auc", "at_least": 0.8}, "auc", "higher"),
        ({"metric": "error", "at_most": 0.1}, "error", "lower"),
    ],
)
def test_patience_in_short_watches_the_metric_of_the_target(target: object, metric: str, better: str) -> None:
    patience = TrainingSpec.parse(MINIMAL | {"stop": {"patience": 7, "target": target}}).stop.patience

    assert patience is not None
    assert (patience.versions, patience.metric, patience.better) == (7, metric, better)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("name: a\nname: b", {"name": "the key is given twice (in lines 1 and 2): leave one of them out"}),
        ('{"local": {"steps": 1, "steps": 2}, "x": [{"y": 1, "y": 2}]}', ["local.steps", "x.0.y"]),
        ("local:\n  steps: 1\n  'steps': 2", ["local.steps"]),
    ],
)
def test_a_key_that_is_given_twice_is_refused_with_its_path(text, found):
    assert (problems(text) if isinstance(found, dict) else list(problems(text))) == found


NUMBERS = {
    "seed": {"seed": ...},
    "max_staleness": {"max_staleness": ...},
    "num_examples_ratio": {"num_examples_ratio": ...},
    "clip_to_own_median": {"clip_to_own_median": ...},
    "clip_to_buffer": {"clip_to_buffer": ...},
    "local.steps": {"local": LOCAL | {"steps": ...}},
    "local.learning_rate": {"local": LOCAL | {"learning_rate": ...}},
    "local.proximal_mu": {"local": LOCAL | {"proximal_mu": ...}},
    "local.seconds": {"local": {"seconds": ..., "batch_size": 1, "learning_rate": 1}},
    "local.epochs": {"local": {"epochs": ..., "batch_size": 1, "learning_rate": 1}},
    "strategy.deadline_s": {"strategy": {"kind": "sync", "deadline_s": ...}},
    "strategy.flush_after_s": {"strategy": {"kind": "auto", "flush_after_s": ...}},
    "server_optimizer.lr": {"server_optimizer": {"lr": ...}},
    "server_optimizer.eps": {"server_optimizer": {"eps": ...}},
    "stop.versions": {"stop": {"versions": ...}},
    "stop.wall_time_s": {"stop": {"wall_time_s": ...}},
    "stop.target.at_least": {"stop": {"target": {"metric": "auc", "at_least": ...}}},
}


@pytest.mark.parametrize("value", [1e300, -1e300, float("inf"), float("nan"), 10**400], ids=repr)
@pytest.mark.parametrize(("path", "keys"), NUMBERS.items(), ids=list(NUMBERS))
def test_a_number_that_makes_no_sense_is_refused_with_its_path(path, keys, value):
    def filled(data):
        return {k: filled(v) if isinstance(v, dict) else value if v is ... else v for k, v in data.items()}

    assert list(problems(MINIMAL | filled(keys))) == [path]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(key=st.sampled_from(sorted(TrainingSpec.model_fields)), value=JSON)
def test_any_value_parses_or_is_a_problem_below_its_key(key: str, value: object) -> None:
    paths: list[str] = []
    try:
        spec = TrainingSpec.parse(MINIMAL | {key: value})
        assert TrainingSpec.parse(spec.to_dict()) == spec
    except JobSpecError as error:
        paths = [problem.path for problem in error.problems]

    assert all(path.split(".")[0] == key for path in paths)


@pytest.mark.parametrize(
    ("given", "kind", "ratio", "back"),
    [
        ("int4", "int4", None, "int4"),
        ({"kind": "int8"}, "int8", None, "int8"),
        ("topk", "topk", 0.01, {"kind": "topk", "ratio": 0.01}),
        ({"kind": "topk", "ratio": 0.05}, "topk", 0.05, {"kind": "topk", "ratio": 0.05}),
    ],
)
def test_the_code_of_updates_is_a_name_or_a_name_and_a_ratio(given, kind, ratio, back):
    spec = TrainingSpec.parse({**MINIMAL, "codec": {"up": given, "down": "int4"}})
    assert (spec.codec.up.kind, spec.codec.up.ratio, spec.codec.down) == (kind, ratio, "int4")
    assert spec.codec.up.is_biased == (kind == "topk")
    assert spec.to_dict()["codec"] == {"up": back, "down": "int4"}
    assert TrainingSpec.parse(spec.to_dict()) == spec


@pytest.mark.parametrize(
    ("codec", "path", "message"),
    [
        ({"up": {"kind": "topk", "ratio": 0}}, "codec.up.ratio", "must be greater than 0"),
        ({"up": {"kind": "int8", "ratio": 0.1}}, "codec.up", "ratio belongs to topk, not to int8"),
        ({"up": {"kind": "topk", "share": 0.1}}, "codec.up.share", "unknown key; known here: kind, ratio"),
        ({"down": "topk"}, "codec.down", "topk is for updates only"),
        ({"down": {"kind": "topk", "ratio": 0.1}}, "codec.down", "topk is for updates only"),
    ],
)
def test_a_code_that_does_not_fit_is_named_with_its_path(codec, path, message):
    with pytest.raises(JobSpecError) as caught:
        TrainingSpec.parse({**MINIMAL, "codec": codec})
    (problem,) = caught.value.problems
    assert problem.path == path
    assert message in problem.message
