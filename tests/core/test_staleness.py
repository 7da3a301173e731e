"""Tables of the staleness functions."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbus.core.rules.staleness import staleness_function
from fedbus.core.spec.training import ConstantSpec, ExponentialSpec, HingeSpec, PolynomialSpec, StalenessSpec

HINGE = HingeSpec(a=10.0, b=4)
GENTLE_HINGE = HingeSpec(a=0.5, b=6)


@pytest.mark.parametrize(
    ("spec", "staleness", "weight"),
    [
        (ConstantSpec(), 0, 1.0),
        (ConstantSpec(), 1000, 1.0),
        (PolynomialSpec(a=0.5), 0, 1.0),
        (PolynomialSpec(a=0.5), 3, 0.5),
        (PolynomialSpec(a=1.0), 4, 0.2),
        (PolynomialSpec(a=0.0), 9, 1.0),
        (HINGE, 0, 1.0),
        (HINGE, 3, 1.0),
        (HINGE, 4, 1.0),  # the corner itself is still full weight
        (HINGE, 5, 1 / 11),
        (HINGE, 6, 1 / 21),
        (GENTLE_HINGE, 6, 1.0),
        (GENTLE_HINGE, 7, 1 / 1.5),  # without the +1 this would be 2
        (ExponentialSpec(a=0.1), 0, 1.0),
        (ExponentialSpec(a=0.1), 10, math.exp(-1)),
    ],
)
def test_weight(spec: StalenessSpec, staleness: int, weight: float) -> None:
    assert staleness_function(spec)(staleness) == pytest.approx(weight, rel=1e-15)


SPECS = st.one_of(
    st.just(ConstantSpec()),
    st.builds(PolynomialSpec, a=st.floats(0, 10)),
    st.builds(HingeSpec, a=st.floats(0, 1e6), b=st.integers(0, 10**6)),
    st.builds(ExponentialSpec, a=st.floats(0, 100)),
)


@given(spec=SPECS, staleness=st.integers(0, 10**9))
def test_weights_are_in_0_1_and_never_rise(spec: StalenessSpec, staleness: int) -> None:
    weight = staleness_function(spec)

    assert weight(0) == 1.0
    assert 0.0 < weight(staleness + 1) <= weight(staleness) <= 1.0
