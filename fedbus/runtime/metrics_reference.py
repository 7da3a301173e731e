"""The table of deploy/docs/metrics.md, made from the metrics themselves; a test compares.

python -m fedbus.runtime.metrics_reference
"""

from __future__ import annotations

from collections.abc import Iterator

from fedbus.runtime.metrics import METRICS, Of

HEADS = {
    Of.BOTH: "Of every daemon",
    Of.AGGREGATOR: "Of the aggregator",
    Of.SITE: "Of a site",
}


def as_markdown() -> str:
    """All metrics, by whose they are."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    for of, head in HEADS.items():
        yield from (f"### {head}", "", "| name | kind | labels | |", "|---|---|---|---|")
        for metric in METRICS:
            if metric.of is of:
                labels = ", ".join(f"`{label}`" for label in metric.labels)
                yield f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |"
        yield ""


if __name__ == "__main__":
    print(as_markdown(), end="")
