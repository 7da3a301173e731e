"""Numbers of a daemon for Prometheus: what there is to know, and where it is counted.

METRICS is the table of everything that can be scraped; a daemon adds to it, observes, sets. `NoMetrics` is what a
daemon has whose endpoint is off: each call returns at once and nothing is imported.

Labels have few values: a job that is known here, a site that is enrolled, a state. The label is `job_id` and not `job`,
which is Prometheus' own word for what it scrapes. Series of a job go when it is forgotten, and those of the job that
ended first when more than MOST_ENDED have ended. Units are seconds, bytes and versions.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge, Histogram
    from prometheus_client.core import GaugeMetricFamily

MOST_ENDED = 100
"""Series of so many jobs that have ended are kept."""
SHORT_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
LINE_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
LONG_S = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0)
STALENESS_VERSIONS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Of(StrEnum):
    """Whose number it is."""

    AGGREGATOR = "aggregator"
    SITE = "site"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Metric:
    """One name that Prometheus sees. `buckets`: upper bounds of a histogram."""

    name: str
    kind: Kind
    of: Of
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


C, G, H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM
A, S, B = Of.AGGREGATOR, Of.SITE, Of.BOTH
JOB, JOB_SITE = ("job_id",), ("job_id", "site")

VERSIONS = Metric("fedbus_versions_total", C, A, "Versions of the global model that were made and published.", JOB)
UPDATES = Metric(
    "fedbus_updates_total", C, A, "Updates by what became of them: folded or refused.", (*JOB_SITE, "outcome")
)
STALENESS = Metric(
    "fedbus_update_staleness_versions",
    H,
    A,
    "Staleness of the updates that were folded, in versions.",
    JOB,
    STALENESS_VERSIONS,
)
RECEIVED_BYTES = Metric("fedbus_received_bytes_total", C, A, "Bytes of updates that came from sites.", JOB_SITE)
PUBLISHED_BYTES = Metric("fedbus_published_bytes_total", C, A, "Bytes of versions put into the model log.", JOB)
READ_S = Metric("fedbus_update_read_seconds", H, A, "Time to decode and check one update.", JOB, SHORT_S)
FOLD_S = Metric("fedbus_update_fold_seconds", H, A, "Time to add one update to the buffer.", JOB, SHORT_S)
COMMIT_S = Metric("fedbus_version_commit_seconds", H, A, "Time to make a version of the buffer, encoded.", JOB, SHORT_S)
PUBLISH_S = Metric(
    "fedbus_version_publish_seconds", H, A, "Time to put a version into the model log, confirmed.", JOB, LINE_S
)
JOBS = Metric("fedbus_jobs", G, A, "Jobs of the ledger by their state.", ("state",))
JOB_VERSION = Metric("fedbus_job_version", G, A, "Newest version of a job that has not ended.", JOB)
JOB_ACTIVE = Metric("fedbus_job_active_sites", G, A, "Sites that take part and are online.", JOB)
JOB_RUNNING = Metric("fedbus_job_running", G, A, "1 while a job trains, 0 while it waits for sites or ends.", JOB)
JOB_UNDECIDED = Metric("fedbus_job_undecided_updates", G, A, "Updates on disk that wait to be decided.", JOB)
JOB_PROGRESS = Metric(
    "fedbus_job_last_progress_timestamp_seconds",
    G,
    A,
    "When a job that has not ended last moved: an update folded, a version made, its work begun or taken up.",
    JOB,
)
SITES = Metric("fedbus_sites", G, A, "Sites by their state, of those that have joined since the start.", ("state",))
SITE_STATE = Metric("fedbus_site_state", G, A, "1 for the state that a site is in.", ("site", "state"))
SITE_SILENT_S = Metric("fedbus_site_lease_age_seconds", G, A, "Time since a site that is online was heard.", ("site",))
SPOOL_BYTES = Metric("fedbus_spool_bytes", G, A, "Bytes of updates between their ack and a checkpoint.")
DEAD_LETTERS = Metric("fedbus_dead_letters_total", C, A, "Messages that break the protocol.")
DISK_FULL = Metric("fedbus_disk_full", G, A, "1 while nothing is taken, for the state folder's disk is full.")

TRAIN_S = Metric("fedbus_local_train_seconds", H, S, "Time of one local training.", JOB, LONG_S)
ENCODE_S = Metric("fedbus_local_encode_seconds", H, S, "Time to make an update of what was trained.", JOB, SHORT_S)
SEND_S = Metric("fedbus_local_publish_seconds", H, S, "Time to publish one update, confirmed.", JOB, LINE_S)
LOCAL_UPDATES = Metric(
    "fedbus_local_updates_total", C, S, "Updates by what became of them: folded, refused, withheld.", (*JOB, "outcome")
)
SENT_BYTES = Metric("fedbus_local_sent_bytes_total", C, S, "Bytes of updates that the broker has confirmed.", JOB)
TAKEN_BYTES = Metric("fedbus_local_received_bytes_total", C, S, "Bytes of versions read from the model log.", JOB)
LOCAL_VERSION = Metric("fedbus_local_version", G, S, "Version of the global model that is held here; -1: none.", JOB)
RESTARTS = Metric("fedbus_trainer_restarts_total", C, S, "Trainers that died or failed, and were started anew.", JOB)
OUTBOX_UPDATES = Metric("fedbus_outbox_updates", G, S, "Updates that await their receipt.")
OUTBOX_BYTES = Metric("fedbus_outbox_bytes", G, S, "Bytes of the updates that await their receipt.")

BUILD = Metric(
    "fedbus_build_info", G, B, "1; its labels say which daemon this is, and of which release.", ("daemon", "version")
)
CONNECTED = Metric("fedbus_broker_connected", G, B, "1 while a session with the broker is up.", ("session",))
BLOCKED = Metric(
    "fedbus_broker_blocked", G, B, "1 while the broker takes nothing (memory or disk alarm).", ("session",)
)
DISK_FREE = Metric("fedbus_disk_free_bytes", G, B, "Room on the disk of the state folder.")
CERTIFICATE_END = Metric(
    "fedbus_certificate_expiry_timestamp_seconds", G, B, "When the kit's certificate ends. Absent without a kit."
)
LIST_END = Metric(
    "fedbus_revocation_list_expiry_timestamp_seconds",
    G,
    B,
    "When the revocation list that ends first ends; then the broker lets nobody in. Absent without one.",
)

METRICS: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))


@dataclass(frozen=True, slots=True)
class Sample:
    """A gauge as it is at this moment."""

    metric: Metric
    value: float
    labels: tuple[str, ...] = ()


class Metrics(Protocol):
    """Where a daemon counts. Labels are given by name, all of them. Any thread may call."""

    def add(self, metric: Metric, amount: float = 1.0, **labels: str) -> None: ...

    def observe(self, metric: Metric, value: float, **labels: str) -> None: ...

    def set(self, metric: Metric, value: float, **labels: str) -> None: ...

    def ended(self, job: str) -> None:
        """A job is over: its gauges go, its other series stay until it is forgotten."""

    def forget(self, job: str) -> None:
        """All series of a job go."""


class NoMetrics:
    """Counts nothing."""

    def add(self, metric: Metric, amount: float = 1.0, **labels: str) -> None: ...

    def observe(self, metric: Metric, value: float, **labels: str) -> None: ...

    def set(self, metric: Metric, value: float, **labels: str) -> None: ...

    def ended(self, job: str) -> None: ...

    def forget(self, job: str) -> None: ...


class PrometheusMetrics:
    """Of one daemon. ImportError without prometheus-client."""

    def __init__(self, of: Of) -> None:
        import prometheus_client as client

        client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = client.CollectorRegistry()
        self._made: dict[Metric, Counter | Gauge | Histogram] = {}
        self._sampled: list[Sample] = []
        self._ended: deque[str] = deque()
        self._lock = threading.Lock()
        for metric in _COUNTED:
            if metric.of in (of, Of.BOTH):
                self._made[metric] = self._make(metric)
        client.ProcessCollector(registry=self.registry)
        self.registry.register(self)

    def _make(self, metric: Metric) -> Counter | Gauge | Histogram:
        import prometheus_client as client

        match metric.kind:
            case Kind.COUNTER:
                return client.Counter(metric.name, metric.help, metric.labels, registry=self.registry)
            case Kind.GAUGE:
                return client.Gauge(metric.name, metric.help, metric.labels, registry=self.registry)
            case Kind.HISTOGRAM:
                return client.Histogram(
                    metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=self.registry
                )

    def add(self, metric: Metric, amount: float = 1.0, **labels: str) -> None:
        self._series(metric, labels).inc(amount)

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        self._series(metric, labels).observe(value)

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        self._series(metric, labels).set(value)

    def _series(self, metric: Metric, labels: dict[str, str]) -> Any:
        made = self._made[metric]
        return made.labels(**labels) if metric.labels else made

    def ended(self, job: str) -> None:
        self._drop(job, [metric for metric in self._made if metric.kind is Kind.GAUGE])
        with self._lock:
            self._ended.append(job)
            first = self._ended.popleft() if len(self._ended) > MOST_ENDED else None
        if first is not None:
            self.forget(first)

    def forget(self, job: str) -> None:
        self._drop(job, list(self._made))

    def _drop(self, job: str, metrics: Iterable[Metric]) -> None:
        for metric in metrics:
            if "job_id" in metric.labels:
                self._made[metric].remove_by_labels({"job_id": job})

    def sampled(self, samples: Iterable[Sample]) -> None:
        """What the gauges that are looked at are now; those of the last time go."""
        self._sampled = list(samples)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges that are looked at, for the registry."""
        from prometheus_client.core import GaugeMetricFamily

        families: dict[Metric, GaugeMetricFamily] = {}
        for sample in self._sampled:
            family = families.get(sample.metric)
            if family is None:
                metric = sample.metric
                family = families[metric] = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
            family.add_metric(sample.labels, sample.value)
        yield from families.values()


_COUNTED = tuple(metric for metric in METRICS if metric.kind is not Kind.GAUGE or metric is JOB_PROGRESS)
"""What is counted as it happens; all else is looked at when somebody asks."""
