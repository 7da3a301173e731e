"""How a daemon is seen from outside: what it counts, and what it traces. Both are off unless somebody asks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog

from fedbus.errors import SettingsError
from fedbus.runtime.metrics import Metrics, NoMetrics, Of, PrometheusMetrics
from fedbus.runtime.metrics_page import LookAt, MetricsPage
from fedbus.runtime.tracing import NoTracing, Tracing, asked_for

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """Of one daemon."""

    metrics: Metrics = field(default_factory=NoMetrics)
    tracing: Tracing = field(default_factory=NoTracing)

    async def serve(self, look: LookAt, *, host: str, port: int) -> None:
        """Serve `/metrics` for ever, where metrics are on; `look` gives the gauges."""
        if isinstance(self.metrics, PrometheusMetrics):
            await MetricsPage(self.metrics, host=host, port=port, look=look).run()


def telemetry_of(daemon: Of, instance: str, *, port: int, environ: Mapping[str, str] = os.environ) -> Telemetry:
    """What the settings and the variables OTEL_* ask for. A missing package is said, and nothing else comes of it.

    port: of `/metrics`, 0 for none. Raises SettingsError for a variable OTEL_* that says what cannot be.
    """
    return Telemetry(metrics=_metrics(daemon, port), tracing=_tracing(daemon, instance, environ))


def _metrics(daemon: Of, port: int) -> Metrics:
    if not port:
        return NoMetrics()
    try:
        return PrometheusMetrics(daemon)
    except ImportError:
        text = "metrics_port is set and prometheus-client is missing: pip install 'fedbus[metrics]'; the daemon goes on"
        log.warning("metrics-not-served", text=text)
        return NoMetrics()


def _tracing(daemon: Of, instance: str, environ: Mapping[str, str]) -> Tracing:
    if not asked_for(environ):
        return NoTracing()
    try:
        from fedbus.runtime.otel import OtelTracing
    except ImportError:
        text = "OTEL_* asks for traces and opentelemetry is missing: pip install 'fedbus[otel]'; the daemon goes on"
        log.warning("traces-not-sent", text=text)
        return NoTracing()
    try:
        tracing = OtelTracing(str(daemon), instance)
    except ValueError as exc:
        raise SettingsError(f"a variable OTEL_* is wrong: {exc}") from exc
    log.info("traces", text="spans are exported as the variables OTEL_* say")
    return tracing
