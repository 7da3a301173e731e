"""What a task raises, prints, logs, warns, and calls its metrics stays at its site, whatever patient it quotes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pika
import pytest

from fedbus.bus import topology as t
from tests.acts import lasting

PATIENT = "Mustermann_Erika_1953"
SAYS = re.compile("mustermann|erika", re.IGNORECASE)  # the year stands in times and sizes too
EXCHANGES = (t.SITES, t.UPDATES, t.CONTROL, t.JOBS, t.MODELS, t.EVENTS)


@contextmanager
def tap(url: str) -> Iterator[Callable[[], list[bytes]]]:
    """Everything that is said on the bus from now on: bodies, keys and headers."""
    connection = pika.BlockingConnection(lasting(url))
    channel = connection.channel()
    queue = str(channel.queue_declare("fedbus.tap", durable=True, arguments={"x-queue-type": "classic"}).method.queue)
    for exchange in EXCHANGES:
        channel.queue_bind(queue, exchange, "#")

    def said() -> list[bytes]:
        found = []
        while (got := channel.basic_get(queue, auto_ack=True))[0] is not None:
            deliver, properties, body = got
            found.append(f"{deliver.routing_key} {properties}".encode() + body)
        return found

    try:
        yield said
    finally:
        connection.close()


@pytest.fixture
def leaky_house(house: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An aggregator and a site whose data folder and files are named after a patient."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).with_name("site_package")))
    data = tmp_path / PATIENT
    data.mkdir()
    (data / "patient").write_text(PATIENT)
    house.start_aggregator()
    house.aggregator.wait_for("aggregator-ready")
    house.start_site("cleveland", data=data).wait_for("site-ready")
    return house


def test_nothing_of_a_patient_leaves_a_site_whose_tasks_quote_him_everywhere(leaky_house: Any) -> None:
    house = leaky_house
    (site,) = [daemon for daemon in house.running.daemons if daemon.name == "cleveland"]
    answers = []
    with tap(house.running.url("aggregator")) as said:
        # given jobs whose task fails in each of its parts, and answers with what it may not
        for where in ("init", "model", "train", "count"):
            job = submit(house, where)
            house.aggregator.wait_for("trainer-trouble", job=job)
            answers.append(house.fedbus("show", job, "-o", "json").out)
            house.fedbus("abort", job)
            house.ended(job, state="aborted")
        for where in ("evaluate", "scores", ""):
            job = submit(house, where)
            house.ended(job)
            answers += [house.fedbus("show", job).out, house.fedbus("watch", job).out]
        answers += [house.fedbus(command).out for command in ("jobs", "sites")]
        bus = said()
    # then the site's own log has it all
    log = site.log.read_text(errors="replace")
    for word in ("init: ", "evaluate: ", "DataError: ", "scan of ", "is old", "auc_", "dice/"):
        assert re.search(f"{word}.*{PATIENT}|{PATIENT}.*{word}", log), word
    # and what was told to others says where to look there
    told = {line["text"] for line in house.aggregator.events() if line["event"] == "trainer-trouble"}
    references = re.findall(r"reference ([0-9a-f]{8})", " ".join(told))
    assert len(set(references)) >= 3
    assert all(f'"reference": "{reference}"' in log for reference in references)
    assert any("DataError in Leaky._say, leaky_tasks.py line " in text for text in told)
    # and nobody else has anything: neither bus, nor answers, nor the aggregator's files and log
    assert len(bus) > 20
    assert [text for text in bus if SAYS.search(text.decode(errors="replace"))] == []
    assert [text for text in answers if SAYS.search(text)] == []
    files = [path for path in (house.folder / "aggregator").rglob("*") if path.is_file()]
    assert any(path.name == "ledger.sqlite3" for path in files)
    assert [p for p in [*files, house.aggregator.log] if SAYS.search(p.read_bytes().decode(errors="replace"))] == []
    # while what the author named went through
    assert any(b'"metrics":{"auc":0.5}' in text and b'"not_finite":["dice/mean"]' in text for text in bus)
    assert any(b'"dice/mean":0.5' in text for text in bus)


def submit(house: Any, where: str) -> str:
    local = {"steps": 1, "batch_size": 1, "learning_rate": 0.1, "evaluate": True}
    return str(house.submit(task="leaky", task_config={"where": where}, local=local, stop={"versions": 2}))
