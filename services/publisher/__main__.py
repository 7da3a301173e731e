"""`python -m services.publisher JOB.yaml ...`: submit job specs and print their ids, settings from FEDBUS_*."""

from __future__ import annotations

import sys
from pathlib import Path

from fedbus.runtime.process import run_async, run_process


async def submit(texts: list[str]) -> None:
    """Submit each job and print its id, also of one that nobody has answered yet."""
    from fedbus.console.client import Client, new_job_id
    from fedbus.console.settings import SubmitterSettings
    from fedbus.core.spec.training import TrainingSpec
    from fedbus.errors import UnansweredError
    from fedbus.runtime.logging import configure_logging
    from fedbus.runtime.printable import printable

    specs = [TrainingSpec.parse_yaml(text) for text in texts]
    settings = SubmitterSettings.load()
    configure_logging("error", settings.log_format)
    async with Client(settings) as client:
        for spec in specs:
            job = new_job_id(spec)
            try:
                print(printable(await client.submit(spec, job=job)))
            except UnansweredError:
                print(job)
                raise


def main() -> int:
    """Exit code 0 when all were accepted, 1 when one was not, 2 without a file or with a wrong setting, 3 when nobody
    has answered yet.
    """
    if len(sys.argv) == 1:
        print("usage: python -m services.publisher JOB.yaml ...", file=sys.stderr)
        return 2
    from fedbus.cli.names import check_names

    check_names()
    try:
        texts = [Path(path).read_text() for path in sys.argv[1:]]
    except (OSError, UnicodeDecodeError) as exc:
        print(f"services.publisher: a job spec cannot be read: {exc}", file=sys.stderr)
        return 1
    run_async(submit(texts))
    return 0


run_process(main)
