"""The trainer's cage, looked at from inside: a real trainer process whose task tries to read the site's key."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fedbus.errors import SettingsError
from fedbus.runtime.cage import EXIT_NO_CAGE, Cage, trouble
from fedbus.site.cage import check_cage, child_environment, source_cage, trainer_cage
from fedbus.site.job.trainer import start_trainer
from fedbus.site.settings import SiteSettings
from fedbus.site.trainer_errors import TrainerFailedError
from fedbus.training import protocol as p

LOOKS = """
import json, os, sys
found = {}
for name, what in json.loads(sys.argv[1]).items():
    try:
        found[name] = repr(eval(what))
    except OSError as exc:
        found[name] = type(exc).__name__
print(json.dumps(found))
"""

needs_landlock = pytest.mark.skipif(bool(trouble()), reason=f"no cage can be made here: {trouble()}")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SiteSettings:
    """A site with a kit, a seal key and some data, in one folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    kit, state = tmp_path / "kit", tmp_path / "state"
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "table.csv").write_text("1,2\n")
    for path in (kit / "key.pem", kit / "ca.pem", state / "seal.key", state / "jobs" / "one" / "spec.json"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("secret")
    (tmp_path / "link").symlink_to(kit / "key.pem")
    return SiteSettings(site_name="mercy", site_data=tmp_path / "data", site_state_dir=state, kit=kit)


def seen(cage: Cage, **looks: str) -> dict[str, str]:
    """What a process inside finds."""
    command = cage.around([sys.executable, "-c", LOOKS, json.dumps(looks)])
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_a_key_that_is_a_link_is_hidden_where_it_lies(settings: SiteSettings, tmp_path: Path) -> None:
    # given a key that systemd keeps
    key = tmp_path / "kit" / "key.pem"
    (tmp_path / "credentials").mkdir()
    key.rename(tmp_path / "credentials" / "site.key")
    key.symlink_to(tmp_path / "credentials" / "site.key")
    cage = trainer_cage(settings)
    assert cage is not None
    assert tmp_path / "credentials" / "site.key" in cage.hidden


@needs_landlock
def test_a_child_reads_data_and_writes_into_its_job_and_reads_no_key(settings: SiteSettings, tmp_path: Path) -> None:
    cage = trainer_cage(settings)
    assert cage is not None
    inside = seen(
        cage,
        key=f"open('{tmp_path}/kit/key.pem').read()",
        seal_key=f"open('{tmp_path}/state/seal.key').read()",
        beside_the_key=f"open('{tmp_path}/kit/ca.pem').read()",
        by_link=f"open('{tmp_path}/link').read()",
        by_root=f"open('/proc/self/root{tmp_path}/kit/key.pem').read()",
        by_the_daemon=f"open('/proc/{os.getpid()}/root{tmp_path}/kit/key.pem').read()",
        memory=f"open('/proc/{os.getpid()}/mem', 'rb')",
        environment=f"open('/proc/{os.getpid()}/environ', 'rb').read(1)",
        renamed=f"os.rename('{tmp_path}/kit/key.pem', '{tmp_path}/state/jobs/one/key')",
        linked=f"os.link('{tmp_path}/kit/key.pem', '{tmp_path}/state/jobs/one/key')",
        new_in_kit=f"open('{tmp_path}/kit/new', 'w')",
        counts=f"open('{tmp_path}/state/policy-day.json', 'w')",
        data_written=f"open('{tmp_path}/data/table.csv', 'a')",
        code_written=f"open('{__file__}', 'a')",
    )
    assert set(inside.values()) <= {"PermissionError", "OSError"}, inside

    inside = seen(
        cage,
        data=f"open('{tmp_path}/data/table.csv').read()",
        job=f"open('{tmp_path}/state/jobs/one/spec.json').read()",
        written=f"open('{tmp_path}/state/jobs/one/new', 'w').write('1')",
        temporary=f"open('{cage.writable[-1] if cage.writable else ''}/new', 'w').write('1')",
        null="open('/dev/null', 'w').write('1')",
    )
    assert inside == {"data": "'1,2\\n'", "job": "'secret'", "written": "1", "temporary": "1", "null": "1"}


@needs_landlock
def test_a_source_child_writes_where_the_site_may_and_reads_no_key(settings: SiteSettings, tmp_path: Path) -> None:
    cage = source_cage(settings)
    assert cage is not None
    inside = seen(
        cage,
        key=f"open('{tmp_path}/kit/key.pem').read()",
        data=f"open('{tmp_path}/data/new.csv', 'w').write('1')",
    )
    assert inside == {"key": "PermissionError", "data": "1"}


@needs_landlock
async def test_a_task_in_a_real_trainer_cannot_read_the_key(
    settings: SiteSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given an installed task that reads the site's key, and one that may read a file beside it
    package = Path(__file__).parents[1] / "daemons" / "site_package"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("FEDBUS_BROKER_URL", "amqp://mercy:secret@127.0.0.1:1/x")
    monkeypatch.setenv("ELSEWHERE", "amqps://mercy:secret@127.0.0.1:1/x")
    said = {}
    for name in ("kit/key.pem", "data/table.csv"):
        async with start_trainer(lambda progress: None, threads=1, cage=trainer_cage(settings)) as trainer:
            opening = p.Open(
                job="j",
                task="prying",
                task_config={"path": str(tmp_path / name)},
                seed=0,
                site="mercy",
                data=str(settings.site_data),
                local={"steps": 1, "batch_size": 1, "learning_rate": 0.1},
                chunk_bytes=1 << 20,
            )
            with pytest.raises(TrainerFailedError) as failed:
                await trainer.ask(opening)
            said[name] = failed.value.traceback
    # then the one is refused, and the other one is read; neither has the broker's address
    assert "PermissionError" in said["kit/key.pem"]
    assert "it says 1,2" in said["data/table.csv"]
    assert "secret" not in "".join(said.values())


def test_what_holds_the_brokers_address_is_not_in_a_childs_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDBUS_KIT", "/etc/fedbus/kit")
    monkeypatch.setenv("BROKER", "amqps://a:b@c/d")
    monkeypatch.setenv("PLAIN", "1")

    found = child_environment({"MORE": "2"})

    assert not {"FEDBUS_KIT", "BROKER"} & found.keys()
    assert (found["PLAIN"], found["MORE"]) == ("1", "2")


@needs_landlock
def test_a_key_with_a_second_name_keeps_the_site_from_starting(settings: SiteSettings, tmp_path: Path) -> None:
    check_cage(settings)
    (tmp_path / "copy").hardlink_to(tmp_path / "state" / "seal.key")

    with pytest.raises(SettingsError, match="has 2 names"):
        check_cage(settings)


@needs_landlock
def test_a_command_is_not_run_outside_its_cage(tmp_path: Path) -> None:
    cage = Cage(hidden=(tmp_path / "kit",), writable=(tmp_path,))

    done = subprocess.run(cage.around([sys.executable, "-c", "print(1)"]), capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (EXIT_NO_CAGE, "")
    assert "move one away" in done.stderr


def test_a_site_without_a_kit_has_no_cage(settings: SiteSettings) -> None:
    without = settings.model_copy(update={"kit": None})
    assert trainer_cage(without) is source_cage(without) is None
    assert trainer_cage(settings.model_copy(update={"trainer_cage": False})) is None
    assert trainer_cage(without.model_copy(update={"trainer_cage": True})) is not None
