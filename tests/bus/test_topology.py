"""The table of the bus: what RabbitMQ 3.10 to 4.x demands of every queue, names, keys and sizes."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest

from fedbus.broker.definitions import (
    Login,
    definitions,
    grant,
    password_hash,
    users,
)
from fedbus.bus import topology
from fedbus.bus.topology import MB, ModelLogSize, QueueSpec, SiteKind, Topology
from fedbus.core.protocol.events import NOBODY
from fedbus.trust.subjects import Role, Subject

SMALL = ModelLogSize(snapshot_bytes=10_000, delta_bytes=5_000, snapshot_every=10)
UPDATES = topology.job_updates("j") + topology.Topology(bindings=(topology.updates_from("j", "site-a"),))
WHOLE: Topology = topology.FEDERATION + topology.site_topology("site-a") + UPDATES + topology.job_models("j", SMALL)
STREAM_ONLY = {"x-queue-type", "x-max-age", "x-max-length-bytes", "x-stream-max-segment-size-bytes"}
STAFF = [Login(name="aggregator"), Login(name="submitter")]


@pytest.mark.parametrize("queue", WHOLE.queues, ids=lambda queue: queue.name)
def test_no_queue_leaves_its_kind_or_its_bound_to_the_broker(queue):
    arguments = queue.arguments
    assert arguments["x-queue-type"] in ("quorum", "stream")
    assert {"x-max-length", "x-max-length-bytes"} & set(arguments)
    if arguments["x-queue-type"] == "stream":
        assert set(arguments) <= STREAM_ONLY
    else:
        assert arguments["x-delivery-limit"] > 0


def test_every_binding_joins_an_exchange_and_a_queue_of_the_table():
    exchanges, queues = {x.name for x in WHOLE.exchanges}, {q.name for q in WHOLE.queues}
    assert {(b.exchange in exchanges, b.queue in queues) for b in WHOLE.bindings} == {(True, True)}


def test_back_pressure_where_a_loss_would_hurt():
    bounds = {q.name: q.arguments.get("x-overflow") for q in WHOLE.queues}
    assert bounds["fedbus.jobs"] == bounds["fedbus.updates.j"] == "reject-publish"


def test_a_queue_must_name_its_type():
    with pytest.raises(ValueError, match="x-queue-type"):
        QueueSpec(name="fedbus.x", arguments={})


def test_arguments_cannot_be_changed_afterwards():
    arguments = WHOLE.queues[0].arguments
    with pytest.raises(TypeError):
        arguments["x-max-length"] = 1  # type: ignore[index]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (topology.submit_key("submitter"), "submit.submitter"),
        (topology.abort_key("job-1"), "abort.job-1"),
        (topology.site_key("mercy", SiteKind.ANSWER), "mercy.answer"),
        (topology.update_key("job-1", "mercy"), "job-1.mercy"),
        (topology.models_key("job-1"), "job-1"),
        (topology.control_key_all(), "all"),
        (topology.control_key_site("mercy"), "site.mercy"),
        (topology.event_key("job-1", NOBODY, "committed"), "job-1.-.committed"),
        (topology.dead_key(topology.updates_queue("job-1")), "updates.job-1"),
    ],
)
def test_keys(key, expected):
    assert key == expected


@pytest.mark.parametrize("name", ["", "Mercy", "a.b", "a b", "#", "*", "x" * 41, "mercy\n"])
def test_a_name_that_would_bend_a_key_is_refused(name):
    for make in (topology.site_queue, topology.updates_queue, topology.models_stream, topology.control_key_site):
        with pytest.raises(ValueError, match="must be 1 to 40"):
            make(name)


def test_the_name_of_a_model_log_is_another_each_time_and_of_one_job_only():
    names = [topology.new_models_stream("heart") for _ in range(2)]
    assert names[0] != names[1]
    assert all(topology.is_models_stream(name, "heart") for name in [*names, topology.models_stream("heart")])
    assert not any(topology.is_models_stream(name, job) for name in names for job in ("hear", "heart-2", "lung"))


@pytest.mark.parametrize(
    ("snapshot_bytes", "segment_bytes"),
    [(10_000, 16 * MB), (16 * MB, 16 * MB), (50 * MB, 50 * MB), (2000 * MB, 500 * MB)],
)
def test_a_segment_of_the_model_log_is_about_one_model(snapshot_bytes, segment_bytes):
    size = ModelLogSize(snapshot_bytes=snapshot_bytes, delta_bytes=snapshot_bytes // 2, snapshot_every=10)
    assert size.segment_bytes == segment_bytes


def test_the_model_log_keeps_two_snapshot_periods():
    size = ModelLogSize(snapshot_bytes=50 * MB, delta_bytes=25 * MB, snapshot_every=10)
    assert size.retention_bytes >= 2 * (50 + 10 * 25) * MB


# ------------------------------------------------------------------ definitions


def test_a_password_hash_is_what_rabbitmq_expects():
    salt = bytes.fromhex("908dc60a")
    expected = base64.b64encode(salt + hashlib.sha256(salt + b"test12").digest()).decode()
    assert password_hash("test12", salt) == expected == "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"


def test_definitions_hold_no_password_and_survive_json():
    login = Login(name="site-a")
    text = json.dumps(definitions([*STAFF, login]))
    assert login.password not in text
    assert login.password not in repr(login)


def test_every_login_that_may_write_has_a_topic_permission_on_each_of_its_exchanges():
    exchanges = [x.name for x in topology.FEDERATION.exchanges]
    for login in (Login(name="submitter"), Login(name="site-a")):
        granted = grant(login)
        writable = [name for name in exchanges if re.search(granted.write, name)]
        assert writable
        assert set(writable) <= set(granted.keys)


@pytest.mark.parametrize(
    ("name", "role"), [("aggregator", Role.AGGREGATOR), ("submitter", Role.SUBMITTER), ("x", Role.SITE)]
)
def test_the_name_of_a_login_says_its_role(name, role):
    assert Login(name=name).role is role


@pytest.mark.parametrize("role", [Role.AGGREGATOR, Role.SUBMITTER, Role.SITE])
def test_the_login_of_a_certificate_has_its_role_and_no_password(role):
    subject = Subject(federation="hearts", name="mercy", role=role, number=3 if role is Role.SITE else None)
    login = Login.certified(subject)
    assert (login.name, login.role) == ("mercy", role)
    user = definitions([login])["users"][0]
    assert (user["password_hash"], user["tags"]) == ("", [])


def test_a_broker_has_no_login():
    with pytest.raises(ValueError, match="does not log in"):
        Login.certified(Subject(federation="hearts", name="broker", role=Role.BROKER))


@pytest.mark.parametrize("number", [0, 1, 3, 4, 9, 639])
def test_a_site_reads_the_model_logs_that_have_its_bit_and_no_others(number):
    login = Login.certified(Subject(federation="hearts", name="mercy", role=Role.SITE, number=number))
    read = grant(login).read

    def may_read(mask: str) -> bool:
        return re.search(read, f"fedbus.models.job-1.{'0f' * 16}.{mask}") is not None

    bits = [1 << (number % 4) if digit == number // 4 else 0 for digit in range(160)]
    only = "".join(f"{bit:x}" for bit in bits)
    others = "".join(f"{15 - bit:x}" for bit in bits)
    assert may_read(only)
    assert may_read("f" * 160)
    assert not may_read(others)
    assert not may_read("f" * (number // 4))
    assert not re.search(read, f"fedbus.models.job-1.{'0f' * 16}")
    assert not re.search(read, f"fedbus.models.job-1.{'0f' * 16}.{only}\n")
    assert re.search(read, "fedbus.site.mercy")
    assert len(f"fedbus.models.{'j' * 40}.{'0' * 32}.{only}") <= 255


def test_no_definition_binds_a_stream():
    """RabbitMQ 4 would not start a second time."""
    found = definitions([*STAFF, Login(name="mercy")])
    streams = {q["name"] for q in found["queues"] if q["arguments"]["x-queue-type"] == "stream"}
    bound = {b["destination"] for b in found["bindings"]}
    assert streams == {topology.EVENTS}
    assert bound == {q["name"] for q in found["queues"]} - streams


def test_only_sites_get_a_control_queue():
    queues = {q["name"] for q in definitions([*STAFF, Login(name="mercy")])["queues"]}
    assert {name for name in queues if name.startswith("fedbus.site.")} == {"fedbus.site.mercy"}


def test_virtual_hosts_are_alike():
    found = definitions([*STAFF, Login(name="mercy")], vhosts=("one", "two"))
    for section in ("permissions", "topic_permissions", "exchanges", "queues", "bindings"):
        one = [{**row, "vhost": "*"} for row in found[section] if row["vhost"] == "one"]
        two = [{**row, "vhost": "*"} for row in found[section] if row["vhost"] == "two"]
        assert one
        assert one == two


def test_the_first_import_of_a_new_login_lets_nobody_in():
    assert set(users([Login(name="mercy")], vhosts=("fedbus",))) == {"users", "topic_permissions"}
