"""What people install: one package, with types, without attacks and measurements."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.web.test_vendored import VENDORED

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    return next(folder.glob("*.whl"))


def run(wheel: Path, tmp_path: Path, *arguments: str) -> str:
    """The command line out of the wheel, with the dependencies of this environment."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from fedbus.cli.app import main; main()"
    command = [sys.executable, "-P", "-c", code, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout + done.stderr


def test_it_has_one_package_with_types_and_data_and_no_bench(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"fedbus"}
    assert {"fedbus/py.typed", "fedbus/demo/job.yaml", "fedbus/tasks/data/heart_disease.csv"} <= set(names)
    assert {f"fedbus/web/static/vendor/{file}" for file in VENDORED} <= set(names)
    assert {"fedbus/web/templates/job.html", "fedbus/web/examples/training.yaml"} <= set(names)
    assert not [name for name in names if name.startswith("fedbus/bench")]


def test_its_command_line_has_all_but_bench_and_chaos_and_says_its_version(wheel: Path, tmp_path: Path) -> None:
    shown = run(wheel, tmp_path, "--help")
    assert " demo " in shown
    assert " bench " not in shown
    assert " chaos " not in shown
    assert run(wheel, tmp_path, "--version") == f"fedbus {wheel.name.split('-')[1]}\n"


def test_nothing_in_it_needs_what_it_leaves_out(wheel: Path, tmp_path: Path) -> None:
    run(wheel, tmp_path, "--help")
    code = (
        "import importlib, pkgutil, sys; sys.path.insert(0, sys.argv[1]); import fedbus;"
        "names = [m.name for m in pkgutil.walk_packages(fedbus.__path__, 'fedbus.')];"
        "[importlib.import_module(n) for n in names if not n.endswith('__main__') and '.cli.bench' not in n"
        " and n != 'fedbus.cli.chaos'];"
        "assert not [m for m in sys.modules if m.startswith(('fedbus.bench', 'services'))];"
        "print(len(names))"
    )
    command = [sys.executable, "-P", "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100
