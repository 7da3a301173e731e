"""`python -m fedbus.sources`: started by a site daemon, which ends it with itself and when it takes too long."""

from __future__ import annotations

import ctypes
import json
import signal
import sys

from fedbus.sources.run import line, run

PR_SET_PDEATHSIG = 1


def main() -> int:
    """Read one order, do it, say what came of it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole terminal; the daemon decides when we end
    out = sys.stdout
    sys.stdout = sys.stderr  # what a library prints is none of our lines
    run(json.load(sys.stdin), lambda said: print(line(said), file=out, flush=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
