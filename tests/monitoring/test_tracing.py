"""Tracing without a federation: when it is off, and which header is believed."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from fedbus.errors import SettingsError
from fedbus.runtime import tracing as t
from fedbus.runtime.metrics import NoMetrics, Of, PrometheusMetrics
from fedbus.runtime.otel import OtelTracing
from fedbus.runtime.telemetry import telemetry_of

KEY = "heart-1/mercy:00000000:1"


class Kept(SpanExporter):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.spans: list[Any] = []

    def export(self, spans: Any) -> SpanExportResult:
        self.spans += spans
        return SpanExportResult.SUCCESS


def test_a_daemon_that_nobody_looks_at_imports_nothing_for_it() -> None:
    code = (
        "import sys, fedbus.aggregator.daemon, fedbus.site.daemon\n"
        "from fedbus.runtime.telemetry import telemetry_of\n"
        "from fedbus.runtime.metrics import Of\n"
        "telemetry_of(Of.SITE, 'mercy', port=0, environ={})\n"
        "print([m for m in sys.modules if m.partition('.')[0] in ('opentelemetry', 'prometheus_client')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("environ", "on"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
    ],
)
def test_only_the_standard_variables_ask_for_traces(environ: dict[str, str], on: bool) -> None:
    assert t.asked_for(environ) is on


@pytest.mark.parametrize(
    ("name", "value"), [("OTEL_TRACES_EXPORTER", "zipkin"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]
)
def test_a_wrong_variable_is_said(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"{name}: expected"):
        telemetry_of(Of.SITE, "mercy", port=0)


@pytest.mark.parametrize("missing", ["prometheus_client", "opentelemetry.sdk.resources"])
def test_a_missing_package_is_said_and_the_daemon_goes_on(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "fedbus.runtime.otel", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    made = telemetry_of(Of.SITE, "mercy", port=9, environ={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"})
    made.tracing.close()
    assert isinstance(made.metrics, NoMetrics) is (missing == "prometheus_client")
    assert made.tracing.on is (missing == "prometheus_client")
    assert "is missing: pip install 'fedbus[" in capsys.readouterr().out


@pytest.mark.parametrize(
    "header",
    [
        "",
        "garbage",
        "00-" + "0" * 32 + "-" + "1" * 16 + "-01",
        "00-" + "a" * 32 + "-" + "1" * 16 + "-01",  # somebody else's trace
        "00-" + "A" * 32 + "-" + "1" * 16 + "-01",
        "00-" + "a" * 500,
    ],
)
def test_of_a_site_only_the_span_in_its_own_trace_is_believed(header: str) -> None:
    exporter = Kept()
    tracing = OtelTracing("aggregator", "aggregator", exporter=exporter)
    tracing.begin(t.RECEIVE_UPDATE, KEY, came=header).end()
    own = f"00-{t.ids_of(KEY)[0]:032x}-00000000000000ab-01"
    tracing.begin(t.RECEIVE_UPDATE, KEY, came=own).end()
    tracing.close()
    first, second = exporter.spans
    assert {s.context.trace_id for s in exporter.spans} == {t.ids_of(KEY)[0]}
    assert first.parent.span_id == t.ids_of(KEY)[1]
    assert second.parent.span_id == 0xAB


def test_series_of_the_job_that_ended_first_go_when_many_have() -> None:
    from fedbus.runtime import metrics as n

    made = PrometheusMetrics(Of.AGGREGATOR)
    for number in range(n.MOST_ENDED + 1):
        made.add(n.VERSIONS, job_id=f"job-{number}")
        made.set(n.JOB_PROGRESS, 1.0, job_id=f"job-{number}")
        made.ended(f"job-{number}")
    values = [s.labels["job_id"] for f in made.registry.collect() for s in f.samples if s.name == n.VERSIONS.name]
    assert len(values) == n.MOST_ENDED
    assert "job-0" not in values
    assert not [s for f in made.registry.collect() for s in f.samples if s.name == n.JOB_PROGRESS.name]
