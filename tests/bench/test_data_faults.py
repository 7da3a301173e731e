"""Faults that are planted in tables and digits are found where they are, and nobody else is named."""

from __future__ import annotations

from fedbus.bench.data_faults import rows
from fedbus.bench.label_faults import Case, run_case


def test_every_planted_fault_is_found_and_nobody_is_named_in_vain() -> None:
    for figure in rows(seeds=1):
        wanted = 1 if figure["case"].endswith(": found") else 0
        assert figure["value"] == wanted, figure["case"]


def test_a_site_with_exchanged_labels_is_named_by_the_model_of_all() -> None:
    named = run_case(Case(seed=3, share=0.3, fault="any class", model="all", alpha=10.0))
    assert (named.found, named.in_vain) == (True, False)
