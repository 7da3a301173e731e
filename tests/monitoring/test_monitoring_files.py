"""What stands in deploy/monitoring: checked by Prometheus' own tool, against the metrics that there are."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedbus.runtime.metrics import METRICS, Kind
from fedbus.runtime.metrics_reference import as_markdown
from tests.cli.test_docs import wrong_words

DEPLOY = Path(__file__).parents[2] / "deploy"
MONITORING = DEPLOY / "monitoring"
RULES = [rule for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
STALLS = ("JobWaits", "SiteLost", "BrokerBlocked", "SpoolGrows", "Refusals", "CertificateEnds", "RevocationListEnds")


def promtool(*words: str) -> str:
    done = subprocess.run(["promtool", *words], cwd=MONITORING, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def exprs() -> Iterator[str]:
    yield from (rule["expr"] for rule in RULES)
    yield from (target["expr"] for panel in dashboard()["panels"] for target in panel["targets"])


def dashboard() -> Any:
    return json.loads((MONITORING / "grafana" / "fedbus.json").read_text())


def test_promtool_takes_the_configuration_and_the_rules() -> None:
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml")
    promtool("check", "rules", "alerts.yml")


def test_each_alert_has_a_case_that_makes_it_fire() -> None:
    promtool("test", "rules", "alerts_test.yml")
    cases = yaml.safe_load((MONITORING / "alerts_test.yml").read_text())["tests"]
    fire = {check["alertname"] for case in cases for check in case["alert_rule_test"] if check.get("exp_alerts")}
    assert fire == {rule["alert"] for rule in RULES}
    assert all(f"Fedbus{name}" in fire for name in (*STALLS, "Disk", "AggregatorAway"))


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_says_what_to_do_in_commands_that_exist(rule: dict[str, Any]) -> None:
    said = rule["annotations"]
    assert said["summary"].endswith(".")
    commands = [re.sub(r"\{\{.*?\}\}", "JOB", line) for line in re.findall(r"`fedbus ([^`]*)`", said["runbook"])]
    assert {line: wrong for line in commands if (wrong := wrong_words(line))} == {}
    assert rule["labels"]["severity"] in ("warning", "critical")


def test_every_expression_asks_for_metrics_that_there_are() -> None:
    histograms = {m.name + end for m in METRICS if m.kind is Kind.HISTOGRAM for end in ("_bucket", "_count", "_sum")}
    known = {metric.name for metric in METRICS if metric.kind is not Kind.HISTOGRAM} | histograms
    labels = {label for metric in METRICS for label in metric.labels} | {"le", "job", "instance", "quantile"}
    for expr in exprs():
        bare = re.sub(r'"[^"]*"', "", expr)
        assert set(re.findall(r"\bfedbus_\w+", bare)) <= known, expr
        matched = re.findall(r"(?:by|on) ?\(([^)]*)\)|\{([^}]*)\}", bare)
        used = {name for found in matched for name in re.findall(r"\w+", " ".join(found))}
        assert used <= labels, expr


def test_promtool_reads_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    found = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    rules = [{"record": f"panel:{n}", "expr": expr.replace("$job_id", ".*")} for n, expr in enumerate(found)]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(found)} rules found" in promtool("check", "rules", str(tmp_path / "rules.yml"))
    assert {panel["title"] for panel in dashboard()["panels"]} >= {"Jobs", "Staleness", "Spool", "State of sites"}


def test_the_page_lists_every_metric_as_the_table_says() -> None:
    assert as_markdown() in (DEPLOY / "docs" / "metrics.md").read_text(), (
        "see python -m fedbus.runtime.metrics_reference"
    )
