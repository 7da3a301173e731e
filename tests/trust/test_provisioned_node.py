"""The private node of a provisioned federation: what of the files it takes as it is, and when it counts as started."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from fedbus.broker.node import PrivateNode
from fedbus.broker.process import free_port
from fedbus.broker.provisioned import ProvisionedBroker
from fedbus.errors import NodeError
from tests.conftest import provision

WITHIN = timedelta(seconds=15)


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return provision(tmp_path_factory.mktemp("provisioned"), port=25_671, sites=("mercy", "ucsf")).base


def test_it_listens_on_loopback_at_its_own_port_and_lets_in_whom_the_files_let_in(federation):
    broker = ProvisionedBroker.of_federation(federation)
    files = broker.config_files(31_234)
    assert broker.port == 25_671
    assert [line for line in files["rabbitmq.conf"].splitlines() if line.startswith("listeners")] == [
        "listeners.tcp = none",
        "listeners.ssl.1 = 127.0.0.1:31234",
    ]
    assert files["advanced.config"] == (federation / "broker" / "advanced.config").read_text()


def test_files_that_were_written_for_another_folder_are_read_where_they_lie(federation, tmp_path):
    moved = shutil.copytree(federation, tmp_path / "moved")
    files = ProvisionedBroker.of_federation(moved).config_files(31_234)
    for name in ("rabbitmq.conf", "advanced.config"):
        assert f"{moved}/broker/" in files[name]
        assert str(federation) not in files[name]


def test_every_vhost_gets_what_the_federations_own_has(federation):
    own = json.loads((federation / "broker" / "definitions.json").read_text())
    made = ProvisionedBroker.of_federation(federation).definitions(["one", "two"])
    assert made["vhosts"] == [{"name": "one"}, {"name": "two"}]
    assert made["users"] == own["users"]
    for kind in ("permissions", "topic_permissions", "queues", "bindings"):
        assert len(made[kind]) == 2 * len(own[kind])
        assert {entry["vhost"] for entry in made[kind]} == {"one", "two"}


@pytest.mark.parametrize("missing", ["cert.pem", "definitions.json", "advanced.config"])
def test_a_folder_that_is_no_federation_is_said_and_nothing_is_made(federation, tmp_path, missing):
    broken = shutil.copytree(federation, tmp_path / "broken")
    (broken / "broker" / missing).unlink()
    with pytest.raises(NodeError, match=f"lacks {missing}"):
        PrivateNode(tmp_path / "node").start(provisioned=broken)
    assert not (tmp_path / "node").exists()


def test_definitions_that_are_none_are_said(federation, tmp_path):
    broken = shutil.copytree(federation, tmp_path / "broken")
    (broken / "broker" / "definitions.json").write_text("[]")
    with pytest.raises(NodeError, match="holds no definitions"):
        ProvisionedBroker.of_federation(broken).logins()


def test_a_node_without_a_tls_listener_does_not_count_as_started(federation, tmp_path, throw_away_node):
    # given files with which RabbitMQ starts, reports no error, and listens nowhere
    broken = shutil.copytree(federation, tmp_path / "broken")
    (broken / "broker" / "advanced.config").write_text("[{rabbit, [{ssl_options, [{depth, 1}]}]}].\n")
    node = throw_away_node()
    # then its start fails
    with pytest.raises(NodeError, match=r"RabbitMQ (ended while it started|does not answer on port)"):
        node.start(provisioned=broken, port=free_port(), die_with_parent=True, ready_within=WITHIN)
    assert not node.status().running


def test_passwords_are_not_for_a_node_where_certificates_log_in(provisioned):
    assert provisioned.node.status().tls
    with pytest.raises(NodeError, match="fedbus provision add"):
        provisioned.node.add_site("kaiser")
    assert provisioned.url("mercy").startswith("amqps://localhost:")
