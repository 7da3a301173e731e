"""The published document of the bus is current, valid by the official parser, and true of what is really sent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from fedbus.aggregator.incoming.admission import FRAME_SLACK_BYTES
from fedbus.broker.definitions import Login, grant
from fedbus.bus import topology as t
from fedbus.contract import words
from fedbus.contract.asyncapi import as_yaml, document
from fedbus.contract.examples import EXAMPLES
from fedbus.core.protocol import events, wire
from fedbus.core.protocol.messages import Chunk
from fedbus.tensors import blocks, codes_topk, digest

ROOT = Path(__file__).parents[2]
MODULES = Path(sys.prefix) / "node" / "node_modules"
PUBLISHED = ROOT / "deploy/asyncapi.yaml"


def parsed_by_node(path: Path) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(MODULES), *os.environ.get("NODE_PATH", "").split(os.pathsep)])
    return subprocess.run(
        ["node", ROOT / "deploy/node/asyncapi-check.js", path],
        env={**os.environ, "NODE_PATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(PUBLISHED.read_text("utf-8"))
    return found


def test_it_is_current() -> None:
    assert PUBLISHED.read_text("utf-8") == as_yaml(), "fedbus schema bus > deploy/asyncapi.yaml"


def test_the_official_parser_has_no_remark() -> None:
    done = parsed_by_node(PUBLISHED)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_the_official_parser_would_have_one(tmp_path: Path, published: dict[str, Any]) -> None:
    wrong = published | {"operations": {"send-site-join": {"action": "shout"}}}
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(wrong))
    done = parsed_by_node(tmp_path / "wrong.yaml")
    assert done.returncode == 1
    assert "error operations.send-site-join" in done.stdout


def test_every_message_is_there(published: dict[str, Any]) -> None:
    told = {message["bindings"]["amqp"]["messageType"] for message in published["components"]["messages"].values()}
    assert set(wire.TYPES) <= told
    carried = {name for channel in published["channels"].values() for name in channel["messages"]}
    assert carried == set(published["components"]["messages"])
    assert {f"event-{kind}" for kind in events.BY_KIND} <= carried


def test_what_is_sent_has_the_schema_that_is_told(published: dict[str, Any]) -> None:
    """Also a message with nothing but what it needs, and one of a later release."""
    for message in EXAMPLES:
        encoded = wire.encode(message)
        told = published["components"]["messages"][encoded.type]
        schema = told["payload"] | {"components": published["components"]}
        jsonschema.validate(json.loads(encoded.body), schema, cls=jsonschema.Draft7Validator)
        jsonschema.validate(dict(encoded.headers), told["headers"])
        needed = published["components"]["schemas"][told["payload"]["$ref"].rpartition("/")[2]].get("required", [])
        least = {key: value for key, value in json.loads(encoded.body).items() if key in needed}
        assert type(wire.decode(encoded.type, {"schema": 1}, wire.to_json(least | {"later": 1}))) is type(message)
    told = published["components"]["messages"]["update-chunk"]["headers"]
    chunk = Chunk(job="a", transfer="site-a:0a0b0c0d:0", part="update", index=0, count=1, body=b"")
    jsonschema.validate(dict(wire.encode(chunk).headers), told)


def test_an_example_for_every_message_of_an_ordinary_job(published: dict[str, Any]) -> None:
    shown = {wire.NAMES[type(message)] for message in EXAMPLES}
    of_kits = {"certificate-renewed", "revocation-lists"}
    assert set(wire.TYPES) - shown == of_kits | {"chunk", "event", "statistics"}


def test_channels_are_those_of_the_broker(published: dict[str, Any]) -> None:
    """What a site says is what its login may write; what it reads exists, with these arguments."""
    bindings = {name: channel["bindings"]["amqp"] for name, channel in published["channels"].items()}
    written = {found["exchange"]["name"] for found in bindings.values() if found["is"] == "routingKey"}
    assert written == {t.SITES, t.UPDATES, t.JOBS}
    kinds = {name.removeprefix("site-") for name in published["channels"] if name.startswith("site-")}
    assert kinds == set(t.SiteKind)
    assert grant(Login(name="cleveland")).keys.keys() == {t.SITES, t.UPDATES}
    queue = t.site_topology("cleveland").queues[0]
    assert published["channels"]["control"]["address"].format(site="cleveland") == queue.name
    assert published["channels"]["control"]["x-queue-arguments"] == dict(queue.arguments)
    assert t.is_models_stream("fedbus.models.heart-0c1d2e3f.9f0e", "heart-0c1d2e3f")


def test_numbers_in_the_words_are_those_of_the_code() -> None:
    assert words.FRAME_SLACK_BYTES == FRAME_SLACK_BYTES
    assert words.BLOCK == blocks.BLOCK
    assert words.DIGEST_TILE == digest._TILE
    assert words.MAX_TOPK == codes_topk.MAX_FRAME
    assert "$" not in document()["info"]["description"]
