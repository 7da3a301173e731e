"""Forgetting where a file cannot be deleted: the job is kept, and it is no end of the aggregator."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from fedbus.aggregator.desk import forgetting
from fedbus.aggregator.desk.forgetting import Forgetting
from fedbus.bus.connection import Session
from fedbus.errors import StoreError
from fedbus.runtime.telemetry import Telemetry
from fedbus.store.ledger import Ledger
from fedbus.store.spool import Spool


async def at_once(function: Any, *args: Any) -> Any:
    return function(*args)


async def test_a_file_that_cannot_be_deleted_keeps_its_job_and_the_limits_go_on(
    tmp_path: Path, vhost: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given two jobs that have ended, with files of one that the system does not delete
    told: asyncio.Queue[str] = asyncio.Queue()

    async def tell(site: str, message: Any) -> None:
        told.put_nowait(message.job)

    def refuse(folder: Path) -> None:
        if folder == tmp_path / "jobs" / "stays":
            raise PermissionError(1, "Operation not permitted")
        removing(folder)

    removing = forgetting.shutil.rmtree
    monkeypatch.setattr(forgetting.shutil, "rmtree", refuse)
    with Ledger(tmp_path / "ledger.sqlite3") as ledger:
        for at, job in enumerate(("stays", "goes")):
            ledger.add_job(job, {"name": job}, message_id=job, submitted_by="ana", state="finished", at=float(at))
            ledger.add_participant(job, "mercy", at=1.0)
            (tmp_path / "jobs" / job).mkdir(parents=True)
            (tmp_path / "jobs" / job / "final.safetensors").write_bytes(bytes(1000))
        async with Session(vhost.url("aggregator"), name="test") as session:
            made = Forgetting(
                tools=SimpleNamespace(
                    ledger=ledger,
                    store=at_once,
                    compute=at_once,
                    announcer=SimpleNamespace(tell=tell),
                    telemetry=Telemetry(),
                ),  # type: ignore[arg-type]
                spool=Spool(tmp_path / "spool"),
                session=session,
                state_dir=tmp_path,
                is_open=lambda job: False,
                keep_bytes=0,
            )
            # then whoever asks is told
            with pytest.raises(StoreError, match="Operation not permitted; the job is kept"):
                await made.forget("stays")
            # and the limits of the settings are held for the other one
            with structlog.testing.capture_logs() as lines:
                running = asyncio.create_task(made.run())
                async with asyncio.timeout(30):
                    assert await told.get() == "goes"
                running.cancel()
        assert [row.job for row in ledger.jobs()] == ["stays"]
        assert "job-not-forgotten" in [line["event"] for line in lines]
