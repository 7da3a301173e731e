"""What may leave a site about an error: fedbus' own words, of all else the type and the place."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from fedbus.core.protocol.layout import Layout, TensorSpec
from fedbus.errors import ContractError, DataError, LayoutError, MissingPackageError, StoreError
from fedbus.tasks.heart_disease_data import read_patients
from fedbus.training.kept import KeptTensors
from fedbus.training.registry import load_task
from fedbus.training.sayable import LONGEST_SAID, LONGEST_TRACEBACK, trouble_of
from fedbus.training.session import check_same_layout
from fedbus.training.task import Site

NOBODY = "Erika_Mustermann"

WARD = '''
"""A ward whose every trouble quotes a patient."""
import sys, types
import numpy as np
from fedbus.errors import ContractError, DataError, TaskError
from fedbus.store.tensor_file import TensorFile
from pathlib import Path

class Rude(Exception):
    def __str__(self):
        raise ValueError("no")

class Named(Exception):
    pass

def read(name):
    return np.loadtxt(name + ".csv")

class Ward:
    def value(self, name): raise ValueError("bad header of " + name)
    def task(self, name): raise TaskError(name)
    def data(self, name): raise DataError(name)
    def missing(self, name): return read(name)
    def opened(self, name): return open(name)
    def through_fedbus(self, name): return TensorFile.open(Path("/nowhere") / name).__enter__()
    def dynamic(self, name): raise type(name, (ValueError,), {})(name)
    def noted(self, name):
        error = ValueError("x"); error.add_note(name); raise error
    def caused(self, name):
        try:
            raise KeyError(name)
        except KeyError as exc:
            raise TaskError("scans cannot be read: " + name) from exc
    def group(self, name): raise ExceptionGroup(name, [ValueError(name)])
    def executed(self, name):
        module = types.ModuleType(name); module.__file__ = "/" + name + ".py"; sys.modules[name] = module
        exec(compile("def f(): raise ValueError('x')", "/" + name + ".py", "exec"), module.__dict__)
        try:
            module.f()
        finally:
            del sys.modules[name]
    def rude(self, name): raise Rude(name)
    def steering(self, name): raise ContractError(name, said="one" + chr(27) + "[2J" + chr(10) + "two")
    def long(self, name): raise ValueError(name * 100000)
'''


@pytest.fixture
def ward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "ward_nine.py").write_text(WARD)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    monkeypatch.delitem(sys.modules, "ward_nine", raising=False)
    import ward_nine

    return ward_nine.Ward()


def caught(call: Callable[[], object]) -> BaseException:
    """What `call` raises, as it would come from there to the trainer: without the lines of this file."""
    try:
        call()
    except Exception as exc:  # noqa: BLE001 - of any kind
        _, _, *below = (exc.__traceback__, *_below(exc.__traceback__))
        return exc.with_traceback(below[0])
    pytest.fail("expected an error")


def _below(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
        yield trace


@pytest.mark.parametrize(
    ("way", "kind"),
    [
        ("value", "ValueError in Ward.value, ward_nine.py line "),
        ("task", "TaskError in Ward.task, ward_nine.py line "),
        ("data", "DataError in Ward.data, ward_nine.py line "),
        ("missing", "FileNotFoundError in read, ward_nine.py line "),
        ("opened", "FileNotFoundError (ENOENT) in Ward.opened, ward_nine.py line "),
        ("through_fedbus", "in Ward.through_fedbus, ward_nine.py line "),
        ("dynamic", "ValueError in Ward.dynamic, ward_nine.py line "),
        ("noted", "ValueError in Ward.noted, ward_nine.py line "),
        ("caused", "TaskError in Ward.caused, ward_nine.py line "),
        ("group", "ExceptionGroup in Ward.group, ward_nine.py line "),
        ("executed", "ValueError in Ward.executed, ward_nine.py line "),
        ("rude", "Rude in Ward.rude, ward_nine.py line "),
        ("long", "ValueError in Ward.long, ward_nine.py line "),
    ],
)
def test_of_a_task_s_error_the_type_and_the_place_may_leave(ward: Any, way: str, kind: str) -> None:
    trouble = trouble_of(caught(lambda: getattr(ward, way)(NOBODY)))

    assert kind in trouble.said
    assert trouble.said.endswith(f"its text is in this site's log, reference {trouble.reference}")
    assert NOBODY not in trouble.said
    assert NOBODY in trouble.traceback or way in ("rude", "executed")
    assert len(trouble.traceback) < LONGEST_TRACEBACK + 100


def test_what_fedbus_wrote_leaves_as_it_is() -> None:
    job, ours = (Layout.of([TensorSpec(name="w", shape=(n,), dtype="float32")]) for n in (4, 6))

    error = caught(lambda: check_same_layout(job, ours))

    assert isinstance(error, LayoutError)
    assert trouble_of(error).said == str(error)
    assert "job's params have w (4), this site's task makes (6)" in str(error)


def test_the_words_that_a_contract_error_means_for_others_leave() -> None:
    error = caught(lambda: Site(name="a", data=Path(), config={"with": 1}, seed=0, device=None).settings(width=4))

    assert isinstance(error, ContractError)
    assert trouble_of(error).said == "expected task_config keys of width; got with"


def test_an_error_of_the_store_names_files_and_does_not_leave(tmp_path: Path) -> None:
    (tmp_path / NOBODY).write_bytes(b"no tensors")

    error = caught(lambda: KeptTensors(tmp_path / NOBODY).read({}))

    assert isinstance(error, StoreError)
    trouble = trouble_of(error)
    assert NOBODY not in trouble.said
    assert NOBODY in trouble.traceback


def test_our_own_tasks_are_tasks(tmp_path: Path) -> None:
    (tmp_path / "heart_disease.csv").write_text(NOBODY)

    error = caught(lambda: read_patients(tmp_path / "heart_disease.csv"))

    assert isinstance(error, DataError)
    said = trouble_of(error).said
    assert said.startswith("DataError in ")
    assert NOBODY not in said
    assert str(tmp_path) not in said


def test_an_error_that_quotes_another_one_does_not_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_ward.py").write_text(f"import {NOBODY}")
    (tmp_path / "broken-1.0.dist-info").mkdir()
    (tmp_path / "broken-1.0.dist-info" / "METADATA").write_text("Name: broken\nVersion: 1.0\n")
    (tmp_path / "broken-1.0.dist-info" / "entry_points.txt").write_text("[fedbus.tasks]\nbroken = broken_ward:Ward\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    trouble = trouble_of(caught(lambda: load_task("broken")))

    assert trouble.said.startswith("ModuleNotFoundError in <module>, broken_ward.py line 1;")
    assert NOBODY not in trouble.said
    assert NOBODY in trouble.traceback


def test_code_that_lies_among_the_data_is_not_named(ward: Any, tmp_path: Path) -> None:
    error = caught(lambda: ward.value(NOBODY))

    said = trouble_of(error, data=tmp_path / "code").said

    assert said.startswith("ValueError")
    assert "ward_nine" not in said


def test_words_that_leave_are_short_and_steer_no_terminal(ward: Any) -> None:
    assert trouble_of(caught(lambda: ward.steering(NOBODY))).said == "one [2J two"
    long = ContractError("", said="x" * 10**6)
    assert len(trouble_of(long).said) == LONGEST_SAID


def test_each_trouble_has_a_reference_of_its_own(ward: Any) -> None:
    references = {trouble_of(caught(lambda: ward.value(NOBODY))).reference for _ in range(5)}
    assert len(references) == 5


def test_a_package_that_is_missing_is_said_with_its_command_and_without_what_python_found() -> None:
    error = MissingPackageError("the task segmentation", extra="monai", why=ImportError(f"no module of {NOBODY}"))
    said = "the task segmentation needs a package that is not installed here: pip install 'fedbus[monai]'"
    assert trouble_of(error).said == said
    assert NOBODY in str(error)
