"""A run on an MLflow tracking server: experiment `fedbus/<name of the job>`, one run a job, found again by its tag."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from fedbus.errors import StoreError
from fedbus.tracking.points import Point

TAG = "fedbus.job"
MOST_AT_ONCE = 1000


class MlflowSink:
    """Asks nothing before the first point, so that a job without points leaves no run."""

    def __init__(self, url: str, job: str, name: str) -> None:
        self._url = url
        self._job = job
        self._experiment = f"fedbus/{name}"
        self._client = MlflowClient(tracking_uri=url)
        self._run: str | None = None

    def written(self) -> set[tuple[str, int]]:
        with self._errors():
            self._run = self._find_run()
            if self._run is None:
                return set()
            names = self._client.get_run(self._run).data.metrics
            return {(name, m.step) for name in names for m in self._client.get_metric_history(self._run, name)}

    def write(self, points: Sequence[Point]) -> None:
        metrics = [Metric(p.name, p.value, int(p.at * 1000), p.version) for p in points]
        with self._errors():
            if self._run is None:
                self._run = self._make_run()
            for start in range(0, len(metrics), MOST_AT_ONCE):
                self._client.log_batch(self._run, metrics=metrics[start : start + MOST_AT_ONCE])

    def close(self, state: str | None) -> None:
        if self._run is None or state is None:
            return
        with self._errors():
            status = {"finished": "FINISHED", "aborted": "KILLED"}.get(state, "FAILED")
            self._client.set_terminated(self._run, status=status)

    def _find_run(self) -> str | None:
        experiment = self._client.get_experiment_by_name(self._experiment)
        if experiment is None:
            return None
        found = self._client.search_runs([experiment.experiment_id], f"tags.`{TAG}` = '{self._job}'", max_results=1)
        return str(found[0].info.run_id) if found else None

    def _make_run(self) -> str:
        experiment = self._client.get_experiment_by_name(self._experiment)
        number = self._client.create_experiment(self._experiment) if experiment is None else experiment.experiment_id
        return str(self._client.create_run(number, tags={TAG: self._job}, run_name=self._job).info.run_id)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except MlflowException as exc:
            raise StoreError(f"mlflow at {self._url}: {str(exc)[:300]}; is the tracking server there?") from exc
