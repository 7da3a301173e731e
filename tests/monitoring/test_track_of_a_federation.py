"""`fedbus track` on a real federation: the curves are those that the aggregator tells, a second run adds nothing."""

from __future__ import annotations

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fedbus.core.protocol.answers import as_json
from tests.monitoring.conftest import Seen


def test_the_curves_of_a_job_are_where_people_look(seen: Seen, tmp_path: Path) -> None:
    house, job = seen.house, seen.job
    # when a job is tracked, twice
    first = house.fedbus("track", job, "--to", f"tensorboard:{tmp_path}")
    again = house.fedbus("track", job, "--to", f"tensorboard:{tmp_path}")
    assert (first.code, again.code) == (0, 0), first.err + again.err
    assert again.err.startswith(f"{job}: 0 points to tensorboard:")
    # then every version is there once, with the scores that the aggregator has
    found = EventAccumulator(str(tmp_path / job), size_guidance={"scalars": 0})
    found.Reload()
    assert [point.step for point in found.Scalars("version/updates")] == [1, 2, 3, 4]
    history = as_json(house.ask(lambda client: client.history(job)))
    for line in history:
        for site, metrics in line["scores"].items():
            for name, value in metrics.items():
                points = {point.step: point.value for point in found.Scalars(f"score/{name}/{site}")}
                assert abs(points[line["version"]] - value) < 1e-5
    assert any(line["scores"] for line in history)


def test_what_cannot_be_tracked_is_said(seen: Seen, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = seen.house.fedbus("track", seen.job, "--to", f"tensorboard:{tmp_path / 'file'}")
    assert (said.code, "cannot write event files in" in said.err) == (1, True)
    said = seen.house.fedbus("track", "gone", "--to", f"tensorboard:{tmp_path}")
    assert (said.code, "no job 'gone'" in said.err) == (1, True)
    assert seen.house.fedbus("track", "gone", "--to", "mlflow:runs").code == 2
