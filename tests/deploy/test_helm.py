"""The chart: linted, rendered with several sets of values, held against Kubernetes' schemas; wrong values refused."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedbus.broker.tls_files import CIPHERS, tls_files
from fedbus.trust.identity import Identity
from fedbus.trust.subjects import Role

from .compose import ROOT
from .conftest import parse

helm = pytest.importorskip("helm_python", reason="helm-python-sdk is not installed")
CHART = ROOT / "deploy" / "helm" / "fedbus"
CUSTOM = ("RabbitmqCluster", "ServiceMonitor")  # their schemas belong to operators
MERCY = {
    "name": "mercy",
    "kitSecret": "mercy-kit",
    "dataClaim": "mercy-data",
    "image": {"tag": "cuda"},
    "resources": {"limits": {"nvidia.com/gpu": 1}},
    "env": {"FEDBUS_MIN_CONTRIBUTORS": "3"},
}
ELSEWHERE = {"enabled": True, "brokerAddresses": ["192.0.2.7/32"]}
VALUES: dict[str, dict[str, Any]] = {
    "default": {},
    "with sites": {"sites": [MERCY, {**MERCY, "name": "ucsf", "nodeSelector": {"gpu": "yes"}}]},
    "with monitoring": {"monitoring": {"enabled": True, "labels": {"release": "prometheus"}}, "sites": [MERCY]},
    "a site alone": {
        "broker": {"enabled": False},
        "aggregator": {"enabled": False},
        "page": {"enabled": False},
        "sites": [MERCY],
        "networkPolicy": ELSEWHERE,
    },
}


def rendered(values: dict[str, Any]) -> list[dict[str, Any]]:
    with helm.Chart.load(CHART) as chart:
        chart.validate_schema(chart.merge_values(values))
        files = chart.render(values=values, name="hearts", namespace="fedbus")
    texts = [text for name, text in sorted(files.items()) if not name.endswith("NOTES.txt")]
    return [found for text in texts for found in yaml.safe_load_all(text) if found]


@pytest.fixture(scope="module")
def releases() -> dict[str, list[dict[str, Any]]]:
    return {name: rendered(values) for name, values in VALUES.items()}


def of_kind(found: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in found if each["kind"] == kind}


def pods(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    kinds = [*of_kind(found, "StatefulSet").items(), *of_kind(found, "Deployment").items()]
    return {name: each["spec"]["template"]["spec"] for name, each in kinds}


def test_lint_has_nothing_to_say() -> None:
    report = helm.lint(CHART, strict=True, kube_version="v1.31.0")
    assert [each for each in report["messages"] if each["severity"] > 1] == []
    assert not report["errors"]


def test_what_is_rendered_is_what_kubernetes_takes(releases: dict[str, list[dict[str, Any]]], tmp_path: Path) -> None:
    for name, found in releases.items():
        known = (each for each in found if each["kind"] not in CUSTOM)
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump_all(known))
        assert len({(each["kind"], each["metadata"]["name"]) for each in found}) == len(found)
    command = ["kubernetes-validate", "--strict", "-k", "1.31.0", *map(str, tmp_path.iterdir())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", VALUES)
def test_every_pod_is_locked_up_and_runs_a_command_with_settings_that_exist(
    name: str, releases: dict[str, list[dict[str, Any]]], known_variables: set[str]
) -> None:
    for pod in pods(releases[name]).values():
        assert pod["securityContext"]["runAsNonRoot"]
        assert not pod["automountServiceAccountToken"]
        volumes = {each["name"] for each in pod["volumes"]} | {"state"}
        for each in (*pod["initContainers"], *pod["containers"]):
            assert each["securityContext"]["readOnlyRootFilesystem"]
            assert each["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert {mount["name"] for mount in each["volumeMounts"]} <= volumes
        (container,) = pod["containers"]
        assert parse(container["args"]) == f"fedbus {container['args'][0]}"
        assert {one["name"] for one in container["env"] if one["name"].startswith("FEDBUS_")} <= known_variables


def test_a_site_reaches_the_broker_and_name_servers_alone(releases: dict[str, list[dict[str, Any]]]) -> None:
    found = releases["a site alone"]
    assert {each["kind"] for each in found} == {"StatefulSet", "Service", "NetworkPolicy"}
    (policy,) = of_kind(found, "NetworkPolicy").values()
    (site,) = of_kind(found, "StatefulSet").values()
    labels = site["spec"]["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    assert "ingress" not in policy["spec"]
    assert [[port["port"] for port in rule["ports"]] for rule in policy["spec"]["egress"]] == [[5671], [53, 53]]
    data = {each["name"]: each for each in site["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]}["data"]
    assert data["readOnly"]


def test_the_broker_has_three_nodes_and_the_tls_of_a_provisioned_one(
    releases: dict[str, list[dict[str, Any]]],
) -> None:
    cluster = of_kind(releases["default"], "RabbitmqCluster")["hearts-broker"]["spec"]
    assert cluster["replicas"] == 3
    assert cluster["tls"]["disableNonTLSListeners"]
    assert "cluster_partition_handling = pause_minority" in cluster["rabbitmq"]["additionalConfig"]

    # given what `fedbus provision` writes, with the operator's places
    own = tls_files(Path("/F"), listener="5671", version="4.x")
    for name, place in (("ca.pem", "ca.crt"), ("cert.pem", "tls.crt"), ("key.pem", "tls.key")):
        own["advanced.config"] = own["advanced.config"].replace(f"/F/{name}", f"/etc/rabbitmq-tls/{place}")
    wanted = own["advanced.config"].replace("/F/crl", "/etc/fedbus/crl").split()
    assert cluster["rabbitmq"]["advancedConfig"].split() == wanted
    assert len(CIPHERS) == 4
    theirs = {line for line in own["rabbitmq.conf"].splitlines() if line.startswith(("auth", "ssl", "max", "anon"))}
    assert theirs <= set(cluster["rabbitmq"]["additionalConfig"].splitlines())


def test_the_kits_that_pods_make_of_secrets_are_whole(
    releases: dict[str, list[dict[str, Any]]], hearts: Path, tmp_path: Path
) -> None:
    found = pods(releases["with sites"])
    for pod, kit, role in (
        ("hearts-aggregator", "kit", Role.AGGREGATOR),
        ("hearts-site-mercy", "state/kit", Role.SITE),
    ):
        # given a volume of a Secret: links, which the group may read
        secret = tmp_path / role / "secret"
        secret.mkdir(parents=True)
        (tmp_path / role / "kit").mkdir()
        for path in (hearts / ("aggregator" if role is Role.AGGREGATOR else "sites/mercy")).glob("*.*"):
            (secret / f"..{path.name}").write_bytes(path.read_bytes())
            (secret / f"..{path.name}").chmod(0o440)
            (secret / path.name).symlink_to(f"..{path.name}")
        command = found[pod]["initContainers"][0]["command"]
        here = [re.sub(r"(?<![\w/])/(secret|kit|state)(?=[/ ])", rf"{tmp_path / role}/\1", word) for word in command]
        # when it is made, and made again at a restart
        for _ in range(2):
            subprocess.run(here, check=True)
        assert Identity.load(tmp_path / role / kit, role=role).role is role
    # and what the hospital changes in its Secret counts, a renewed certificate stays
    (tmp_path / "site/secret/..policy.toml").chmod(0o640)
    (tmp_path / "site/secret/..policy.toml").write_text("format = 1\n")
    (tmp_path / "site/state/kit/cert.pem").write_text("renewed")
    subprocess.run(here, check=True)
    assert (tmp_path / "site/state/kit/policy.toml").read_text() == "format = 1\n"
    assert (tmp_path / "site/state/kit/cert.pem").read_text() == "renewed"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"broker": {"replicas": 2}}, "replicas"),
        ({"brokr": {}}, "brokr"),
        ({"sites": [{"name": "Mercy", "kitSecret": "a", "dataClaim": "b"}]}, "name"),
        ({"sites": [{"name": "mercy", "kitSecret": "a"}]}, "dataClaim"),
        ({"aggregator": {"env": {"FEDBUS_BROKER_URL": "amqps://a:b@c/d"}}}, "FEDBUS_BROKER_URL"),
        ({"broker": {"enabled": False}}, "brokerAddresses"),
    ],
)
def test_wrong_values_are_refused_by_name(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(helm.HelmError, match=said):
        rendered(wrong)
