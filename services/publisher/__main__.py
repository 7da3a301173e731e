"""`python -m services.publisher JOB.yaml ...`: submit job specs and print their ids, settings from FEDBUS_*."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from fedbus.core.jobspec import JobSpec
from fedbus.errors import FedbusError, UnansweredError
from fedbus.runtime.logging import configure_logging
from fedbus.runtime.printable import printable, printable_lines
from services.publisher.client import Client, new_job_id
from services.publisher.settings import PublisherSettings


async def submit(specs: list[JobSpec], settings: PublisherSettings) -> None:
    """Submit each job and print its id, also of one that nobody has answered yet."""
    async with Client(settings) as client:
        for spec in specs:
            job = new_job_id(spec)
            try:
                print(printable(await client.submit(spec, job=job)))
            except UnansweredError:
                print(job)
                raise


def main(paths: list[str]) -> int:
    """Exit code 0 when all were accepted, 1 when one was not, 2 without a file, 3 when nobody has answered yet."""
    if not paths:
        print("usage: python -m services.publisher JOB.yaml ...", file=sys.stderr)
        return 2
    try:
        settings = PublisherSettings.load()
        configure_logging("error", settings.log_format)
        asyncio.run(submit([JobSpec.parse_yaml(Path(path).read_text()) for path in paths], settings))
    except UnansweredError as exc:
        print(f"services.publisher: {printable_lines(exc)}", file=sys.stderr)
        return 3
    except (FedbusError, OSError, UnicodeDecodeError) as exc:
        print(f"services.publisher: {printable_lines(exc)}", file=sys.stderr)
        return 1
    return 0


sys.exit(main(sys.argv[1:]))
