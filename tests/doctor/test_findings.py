"""Exit codes by area, and checks that hang."""

from __future__ import annotations

import threading

import pytest

from fedbus.doctor.finding import Area, Reporter, exit_code
from fedbus.doctor.limits import Deadline, limited


def test_warnings_are_no_failure():
    check = Reporter(Area.TLS, "tls")
    assert exit_code([check.ok("fine"), check.warn("ends soon", "renew it"), check.skipped("not tried")]) == 0


@pytest.mark.parametrize(("area", "code"), [*zip(Area, range(11, 18), strict=True)])
def test_each_area_has_its_code(area, code):
    assert exit_code([Reporter(area, "it").fail("broken", "mend it")]) == code


def test_the_first_area_that_failed_is_the_code_whatever_comes_first():
    findings = [Reporter(area, "it").fail("broken", "mend it") for area in (Area.MACHINE, Area.NETWORK, Area.LOGIN)]
    assert exit_code(findings) == 12


def test_a_call_that_never_returns_is_left_behind():
    with pytest.raises(TimeoutError, match="no answer within"):
        limited("hangs", threading.Event().wait, 0.05)


def test_a_call_that_raises_raises_here():
    with pytest.raises(ZeroDivisionError):
        limited("broken", lambda: 1 / 0, 5)


def test_a_deadline_that_is_over_leaves_nothing():
    now = iter([0.0, 3.0, 20.0])
    deadline = Deadline(10, clock=lambda: next(now))
    assert (deadline.left_s, deadline.left_s) == (7.0, 0.0)
