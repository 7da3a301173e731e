"""A job can be found by whoever submitted it, also when no aggregator has answered."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def test_a_job_that_nobody_answers_is_known_by_its_id_and_found_when_an_aggregator_starts(house):
    # given no aggregator
    said = house.fedbus("submit", "-", stdin=json.dumps(house.spec()), timeout_s=0.5)
    # then the code says that it is published, the id is printed, and what to do
    job = said.out.strip()
    assert said.code == 3, said.err
    assert job.startswith("test-")
    assert f"do not submit it again, ask `fedbus show {job}`" in said.err.replace("\n", " ")
    # when an aggregator starts
    house.start_aggregator().wait_for("job-submitted", job=job)
    # then the job has that id
    shown = house.fedbus("show", job, "-o", "json").json
    assert shown["job"] == job


def test_wait_waits_for_the_answer_and_the_job_is_one_job(house):
    # given a submit that waits, of which the broker has the job
    program = Path(sys.executable).with_name("fedbus")
    env = {"FEDBUS_BROKER_URL": house.running.url("submitter"), "FEDBUS_TIMEOUT_S": "0.5"}
    arguments = [program, "submit", "-", "--wait"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(arguments, env={**os.environ, **env}, text=True, **pipes) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(json.dumps(house.spec()))
        process.stdin.close()
        assert "waiting for the answer" in process.stderr.readline()
        # when an aggregator starts
        house.start_aggregator()
        # then it is answered: one job, though the broker had the message twice
        assert process.wait(timeout=30) == 0
        assert process.stdout is not None
        job = process.stdout.read().strip()
    assert [row.job for row in house.ask(lambda client: client.jobs())] == [job]


def test_a_question_that_nobody_answers_is_no_answer(house):
    said = house.fedbus("show", "heart-1", timeout_s=0.5)
    assert (said.code, said.out) == (1, "")
    assert "is the aggregator running?" in said.err
