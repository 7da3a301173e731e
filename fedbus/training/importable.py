"""`python -m fedbus.training.importable FD TASK...`: which tasks can be imported here, and what torch sees.

For `fedbus doctor`, which is no process for foreign code. One JSON object a line on the open file FD:
`{"begin": task}`, `{"task": task, "error": text}`, and at the end `{"gpus": [name], "torch": version}`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import IO

from fedbus.training.registry import load_task


def say_importable(names: Sequence[str], out: IO[str]) -> None:
    """Import these tasks one after the other; whatever one of them raises is its line."""
    for name in names:
        print(json.dumps({"begin": name}), file=out, flush=True)
        try:
            load_task(name)
        except (Exception, SystemExit) as exc:  # noqa: BLE001  a task is foreign code
            print(json.dumps({"task": name, "error": f"{type(exc).__name__}: {exc}"}), file=out, flush=True)
        else:
            print(json.dumps({"task": name, "error": ""}), file=out, flush=True)
    print(json.dumps(_torch()), file=out, flush=True)


def _torch() -> dict[str, object]:
    try:
        import torch

        gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    except Exception as exc:  # noqa: BLE001  a build that does not fit the machine raises what it likes
        return {"gpus": [], "torch": f"cannot be used: {exc}"}
    return {"gpus": gpus, "torch": torch.__version__}


if __name__ == "__main__":
    with os.fdopen(int(sys.argv[1]), "w") as out:
        say_importable(sys.argv[2:], out)
