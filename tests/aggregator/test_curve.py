"""The curve of a long job comes in answers that a message takes, each version once."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedbus.aggregator.desk import curve
from fedbus.core.job.scores import Score
from fedbus.core.protocol.answers import VersionLine
from fedbus.core.protocol.messages import UpdateId
from fedbus.core.protocol.requests import BEFORE_ALL
from fedbus.core.rules.facts import Committed
from fedbus.store.ledger import Ledger


@pytest.mark.parametrize(
    ("versions", "metrics", "answers"), [(3, 1, 1), (curve.MOST_VERSIONS + 3, 1, 2), (40, 3000, 5)]
)
def test_a_long_curve_comes_in_several_answers(tmp_path: Path, versions: int, metrics: int, answers: int) -> None:
    # given a job with so many versions, each scored by one site
    with Ledger(tmp_path / "ledger.sqlite3") as ledger:
        ledger.add_job("heart", {}, message_id="m", submitted_by="ana", state="running", at=1.0)
        ledger.set_job("heart", started_at=10.0)
        committed = [
            Committed(version=v, update_ids=(UpdateId.parse(f"mercy:0123abcd:{v}"),), normaliser=1, reason="", at=0)
            for v in range(1, versions + 1)
        ]
        ledger.record_facts("heart", committed, at=12.5)
        score = {f"metric-{n}": 0.5 for n in range(metrics)}
        for version in range(1, 41 if metrics > 1 else 3):
            measured = Score(version=version, metrics=score, num_examples=9)
            ledger.findings.add_score("heart", "mercy", measured, means=score, at=13.0)
        row = ledger.job("heart")
        assert row is not None
        # when it is asked for until there is no more
        lines: list[VersionLine] = []
        asked, more = 0, True
        while more:
            answer = curve.answer(ledger, row, lines[-1].version if lines else BEFORE_ALL)
            lines += answer.history
            more, asked = answer.more, asked + 1
    # then every version is there once, version 0 too
    assert asked == answers
    assert [line.version for line in lines] == list(range(versions + 1))
    assert (lines[0].seconds, lines[0].contributors) == (0.0, ())
    assert (lines[2].seconds, lines[2].contributors) == (2.5, ("mercy",))
    assert lines[2].scores == {"mercy": score}
