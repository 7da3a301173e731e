"""The vocabulary: names and ids that cannot be built wrong."""

from __future__ import annotations

import pytest

from fedbus.core.protocol import messages as m


@pytest.mark.parametrize("name", ["a", "mercy", "va-long-beach", "0", "-", "a" * 40])
def test_a_good_name_is_returned(name: str) -> None:
    assert m.check_name("site", name) == name


@pytest.mark.parametrize("name", ["", "a" * 41, "Mercy", "a.b", "a*", "a#", "a/b", "..", "a b", "é", "a\n", "mercy\n"])
def test_a_name_that_would_break_a_routing_key_or_a_path_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="must be 1 to 40 of a-z, 0-9 and '-'"):
        m.check_name("site", name)


@pytest.mark.parametrize("text", ["mercy:0123abcd:0", "mercy:0123abcd:7", "a-1:ffffffff:999999999999999999"])
def test_an_update_id_is_its_text_and_back(text: str) -> None:
    assert str(m.UpdateId.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mercy",
        "mercy:0123abcd",
        "mercy:0123abcd:7:8",
        "Mercy:0123abcd:7",
        "mercy:0123ABCD:7",
        "mercy:123:7",
        "mercy:0123abcd:-1",
        "mercy:0123abcd:seven",
        "mercy:0123abcd:\u0667",
        "mercy:0123abcd:1" + "0" * 18,
    ],
)
def test_what_is_no_update_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"update id|site '"):
        m.UpdateId.parse(text)


@pytest.mark.parametrize("text", ["mercy:0123abcd:007", "mercy:0123abcd:00"])
def test_one_update_has_one_text_so_that_it_cannot_be_counted_under_two(text: str) -> None:
    with pytest.raises(ValueError, match="is not site:incarnation:sequence"):
        m.UpdateId.parse(text)


def test_a_receipt_names_an_update() -> None:
    with pytest.raises(ValueError, match="is not site:incarnation:sequence"):
        m.Receipt(job="heart", update_id="the last one", outcome=m.Outcome.FOLDED)
    with pytest.raises(ValueError, match="at least 1"):
        m.StepBudget(job="heart", steps=0)


def test_only_three_states_are_an_end() -> None:
    assert {s for s in m.JobState if s.ended} == {m.JobState.FINISHED, m.JobState.FAILED, m.JobState.ABORTED}
