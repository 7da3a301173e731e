"""`fedbus --help` answers at once: nothing that costs time is imported for it."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

HEAVY = {
    "torch",
    "numpy",
    "aio_pika",
    "pydantic",
    "rich.table",
    "safetensors",
    "monai",
    "nibabel",
    "pydicom",
    "cryptography",
}
# The goal is 0.3 s on an idle machine. Processor time, because tests share two cores with much else.
AT_MOST_CPU_S = 2.0


def cpu_of_children_s() -> float:
    """Processor time of all children of this process that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_imports_nothing_heavy():
    code = "import sys, fedbus.cli.commands; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert not HEAVY & set(done.stdout.split())


def test_help_lists_the_commands_in_a_moment():
    program = Path(sys.executable).with_name("fedbus")
    before = cpu_of_children_s()
    done = subprocess.run(
        [program, "--help"],
        env={**os.environ, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert cpu_of_children_s() - before < AT_MOST_CPU_S
    words = done.stdout.split()
    assert {"demo", "aggregator", "site", "submit", "jobs", "show", "sites", "watch", "abort", "broker"} <= set(words)


def test_help_shows_no_type_for_a_flag_and_operators_commands_apart_from_trials():
    program = Path(sys.executable).with_name("fedbus")
    shown = [
        subprocess.run([program, *words, "--help"], capture_output=True, text=True, timeout=60, check=True).stdout
        for words in ([], ["submit"], ["bench"], ["bench", "time-to-target"])
    ]
    assert "<bool>" not in "".join(shown)
    assert shown[0].index(" broker ") < shown[0].index("Try and measure") < shown[0].index(" simulate ")


def test_the_task_segmentation_and_what_reads_its_studies_load_monai_only_in_a_trainer():
    code = (
        "import sys, fedbus.imaging.series, fedbus.imaging.studies, fedbus.site.daemon\n"
        "assert not {'torch', 'monai'} & set(sys.modules)\n"
        "import fedbus.tasks.segmentation; assert 'monai' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
