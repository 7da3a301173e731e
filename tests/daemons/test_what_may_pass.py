"""What fails and may pass is tried again: a folder that is mounted later, and a state folder that cannot be used."""

from __future__ import annotations

from datetime import timedelta

from fedbus.broker.process import free_port
from fedbus.tasks.heart_disease import write_site_data

LONG = timedelta(minutes=3)  # five trainers are started, with pauses between
HEART = {
    "task": "heart_disease",
    "task_config": {},
    "local": {"steps": 2, "batch_size": 32, "learning_rate": 0.05, "evaluate": False},
    "stop": {"versions": 3},
}


def test_data_that_come_late_are_found_and_a_command_at_the_site_makes_it_look_now(house):
    # given a site whose folder holds no patients yet
    data = house.folder / "data" / "cleveland"
    data.mkdir(parents=True)
    (data / "readme.txt").write_text("the archive is mounted at night")
    house.start_aggregator()
    site = house.start_site("cleveland", data=data)
    job = house.submit(**HEART)
    # when it has failed for the third time
    site.wait_for("trainer-trouble", within=LONG, failures=3, fatal=False)
    assert house.job(job)["declined"] == {}
    # and the patients are there, and a person says so
    write_site_data(data, "cleveland")
    said = house.fedbus("retry", "cleveland", "--state-dir", str(house.folder / "sites" / "cleveland"))
    # then it goes on
    assert said.code == 0, said.err
    assert "tries again" in said.out
    site.wait_for("try-now")
    house.ended(job)


def test_a_job_that_was_given_up_is_offered_again_when_a_person_says_so(house):
    # given a site without patients and without patience
    data = house.folder / "data" / "cleveland"
    data.mkdir(parents=True)
    (data / "readme.txt").write_text("soon")
    house.start_aggregator()
    site = house.start_site("cleveland", data=data, patience_s=0)
    job = house.submit(**HEART)
    site.wait_for("trainer-trouble", within=LONG, fatal=True)
    # when that was mended
    write_site_data(data, "cleveland")
    said = house.fedbus("retry", "cleveland", "--state-dir", str(house.folder / "sites" / "cleveland"))
    # then it takes part
    assert said.code == 0, said.err
    house.ended(job)


def test_retry_does_no_harm_to_a_site_that_waits_for_its_broker(house):
    # given a site that holds its folder and cannot reach the broker
    site = house.start_site("cleveland", broker_url=f"amqp://cleveland:x@127.0.0.1:{free_port()}/fedbus")
    site.wait_for("broker unreachable")
    # when a person says that something was mended
    said = house.fedbus("retry", "cleveland", "--state-dir", str(house.folder / "sites" / "cleveland"))
    # then it lives, and ends in order
    assert said.code == 0, said.err
    assert house.terminate(site) == 0


def test_retry_where_no_site_runs_says_where_it_looked(house):
    said = house.fedbus("retry", "cleveland", "--state-dir", str(house.folder / "nothing"))
    assert said.code == 2
    assert f"no site daemon works in {house.folder / 'nothing'}" in said.err


def test_a_job_whose_folder_cannot_be_used_is_declined_and_the_others_go_on(house):
    # given a site that trains, and something in the place of its folder for jobs to come
    house.start_aggregator()
    site = house.start_site("cleveland", step_delay_s=0.05)
    first = house.submit(stop={"versions": 100_000})
    house.committed(1)
    jobs = house.folder / "sites" / "cleveland" / "jobs"
    jobs.rename(jobs.with_name("moved"))
    jobs.touch()
    # when another job is offered
    second = house.submit()
    # then only that one is declined
    site.wait_for("job-not-begun", job=second)
    house.aggregator.wait_for("site-declined", job=second)
    jobs.unlink()
    jobs.with_name("moved").rename(jobs)
    house.committed(house.job(first)["version"] + 2)
    assert site.alive
