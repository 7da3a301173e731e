from __future__ import annotations

import asyncio
import dataclasses
import socket
import struct
from types import MappingProxyType
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbus.core.protocol.effort import Effort
from fedbus.core.protocol.spread import Spread
from fedbus.core.protocol.statistics import Column, Distribution, Plan, Statistics
from fedbus.errors import DecodeError
from fedbus.training import protocol as p

OPEN = p.Open(
    job="heart",
    task="heart_disease",
    task_config={"hidden": 8, "list": [1, "a", None, 0.5]},
    seed=2**63 - 1,
    site="cleveland",
    data="/data",
    local={"steps": 3, "batch_size": 8, "learning_rate": 0.1},
    up="fp16",
    chunk_bytes=1 << 20,
)
MESSAGES: list[p.Message] = [
    OPEN,
    p.MakeInitial(path="/x"),
    p.Load(
        version=3, digest="ab", deltas=("/d2", "/d3"), snapshot="/s", layout={"tensors": [["w", [2, 3], "float32"]]}
    ),
    p.Load(version=3, digest="ab"),
    p.Train(path="/u", seed=7),
    p.Train(path="/u", seed=7, steps=20),
    p.Score(version=3),
    p.Examine(
        job="heart",
        task="heart_disease",
        task_config={},
        seed=0,
        site="va",
        data="/data",
        plan=Plan(salt="0a", minimum=7),
    ),
    p.Save(path="/m", version=3, like="/old"),
    p.Cancel(),
    p.Close(),
    p.Hello(pid=4711),
    p.Opened(device="cpu", layout_digest="cd", numel=6),
    p.Made(layout={"tensors": []}, frame_sizes=(24, 48), digest="cd"),
    p.Loaded(version=3),
    p.LoadFailed(version=3, reason="digest"),
    p.Progress(step=1, steps=0),
    p.Progress(step=1, steps=9, loss=0.5),
    p.Trained(
        base_version=3, frame_sizes=(24,), effort=Effort(num_examples=5, steps=9, seconds=1.5, metrics={"loss": 0.25})
    ),
    p.Cancelled(base_version=3, steps=4),
    p.Scored(version=3, metrics={"auc": 0.75}, num_examples=4),
    p.Scored(version=3, metrics={}, num_examples=4, spreads={"auc": Spread(value=0.5, quantiles=(0.25, 0.75))}),
    p.Examined(statistics=None),
    p.Examined(statistics=Statistics(examples=20, columns=(Column(name="age", values=Distribution(count=None)),))),
    p.Saved(version=3),
    p.Failed(error="no", traceback="Traceback", fatal=True),
]
GOLDEN: list[tuple[p.Message, str]] = [
    (p.Cancel(), "09000000 92 a6 63616e63656c 80"),
    (
        p.Score(version=300),
        "36000000 92 a5 73636f7265 85 a7 76657273696f6e cd012c a9 696e74657276616c73 c2"
        " a5 6d6f64656c ff a7 616761696e7374 ff a6 6c6f73736573 00",
    ),
    (p.Loaded(version=3), "12000000 92 a6 6c6f61646564 81 a7 76657273696f6e 03"),
    (
        p.Progress(step=2, steps=5, loss=0.5),
        "26000000 92 a8 70726f6772657373 83 a4 73746570 02 a5 7374657073 05 a4 6c6f7373 cb3fe0000000000000",
    ),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_comes_back_as_it_was(message: p.Message) -> None:
    assert p.unpack(p.pack(message)[4:]) == message


def test_every_type_is_in_the_table() -> None:
    assert {type(message) for message in MESSAGES} == set(p.TYPES.values())


@pytest.mark.parametrize(("message", "golden"), GOLDEN, ids=lambda value: type(value).__name__)
def test_bytes_are_golden(message: p.Message, golden: str) -> None:
    assert p.pack(message).hex() == golden.replace(" ", "")


def test_read_only_mappings_of_a_job_spec_pass() -> None:
    frozen = dataclasses.replace(OPEN, task_config=MappingProxyType({"deep": MappingProxyType({"list": (1, 2)})}))

    found = p.unpack(p.pack(frozen)[4:])

    assert isinstance(found, p.Open)
    assert found.task_config == {"deep": {"list": [1, 2]}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (["score", {}], "message score: version: Field required"),
        (["score", {"version": "three"}], "message score: version: "),
        (["cancel", {"why": 1}], "message cancel: why: Unexpected keyword argument"),
        (["dance", {}], "expected a message type of open, "),
        (["cancel", []], "expected a message type of"),
        ({"cancel": {}}, r"expected \[type, fields\], got a dict"),
        (["cancel"], r"expected \[type, fields\], got a list"),
    ],
)
def test_a_wrong_message_says_what_was_expected(content: Any, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        p.unpack(msgpack.packb(content))


@given(body=st.binary(max_size=200))
def test_garbage_gives_only_decode_error(body: bytes) -> None:
    with pytest.raises(DecodeError):
        p.unpack(body)


@given(at=st.integers(0, 10**6), cut=st.integers(0, 10**6), value=st.integers(0, 255), which=st.sampled_from(MESSAGES))
def test_damage_gives_a_message_or_decode_error(at: int, cut: int, value: int, which: p.Message) -> None:
    body = bytearray(p.pack(which)[4:])
    body[at % len(body)] = value
    try:
        p.unpack(bytes(body[: len(body) - cut % 3]))
    except DecodeError:
        return


@pytest.mark.parametrize("body", [b"\x91" * 100_000, b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"])
def test_bombs_are_refused(body: bytes) -> None:
    with pytest.raises(DecodeError):
        p.unpack(body)


def test_a_message_over_the_limit_is_not_sent() -> None:
    with pytest.raises(ValueError, match="at most"):
        p.pack(p.MakeInitial(path="x" * p.MAX_MESSAGE_BYTES))


async def test_asyncio_streams_and_blocking_sockets_understand_each_other() -> None:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)

    await p.write_message(writer, OPEN)
    received = await asyncio.to_thread(p.receive_message, theirs)
    for message in MESSAGES:
        p.send_message(theirs, message)
    answers = [await p.read_message(reader) for _ in MESSAGES]
    theirs.close()
    with pytest.raises(EOFError):
        await p.read_message(reader)
    writer.close()

    assert received == OPEN
    assert answers == MESSAGES


def test_a_closed_socket_is_the_end_of_the_file() -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(p.pack(OPEN)[:-1])
    theirs.close()

    with ours, pytest.raises(EOFError, match="1 bytes before the end"):
        p.receive_message(ours)


async def test_an_impossible_length_is_refused_before_it_is_read() -> None:
    prefix = struct.pack("<I", p.MAX_MESSAGE_BYTES + 1)
    ours, theirs = socket.socketpair()
    theirs.sendall(prefix)
    reader = asyncio.StreamReader()
    reader.feed_data(prefix)

    with ours, theirs, pytest.raises(DecodeError, match="at most"):
        p.receive_message(ours)
    with pytest.raises(DecodeError, match="at most"):
        await p.read_message(reader)
