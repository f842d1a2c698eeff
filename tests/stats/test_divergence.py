import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import jensenshannon

from headpatch.stats.attention_mass import distribution
from headpatch.stats.divergence import js, js_distance, kl

weights = st.one_of(st.just(0.0), st.floats(1e-6, 1.0), st.floats(5e-324, 1e-300))


@st.composite
def distributions(draw: st.DrawFn, count: int = 2) -> list[np.ndarray]:
    n = draw(st.integers(1, 40))
    rows = hnp.arrays(np.float64, n, elements=weights).filter(lambda row: row.sum() > 0)
    return [distribution(draw(rows)) for _ in range(count)]


def naive_kl(p, q) -> float:
    total = 0.0
    for a, b in zip(p, q, strict=True):
        if a > 0:
            total += math.inf if b == 0 else float(a) * (math.log(a) - math.log(b))
    return total


def naive_js(p, q) -> float:
    total = 0.0
    for a, b in zip(p, q, strict=True):
        for x in (a, b):
            if x > 0:
                total += 0.5 * float(x) * (math.log(2) + math.log(x) - math.log(a + b))
    return total


@given(distributions())
def test_equal_to_naive_loops(pair):
    p, q = pair
    assert float(kl(p, q)) == pytest.approx(naive_kl(p, q), rel=1e-9, abs=1e-12)
    assert float(js(p, q)) == pytest.approx(naive_js(p, q), rel=1e-9, abs=1e-12)


@given(distributions())
def test_kl_obeys_pinsker_and_is_infinite_exactly_off_the_support(pair):
    """KL >= 2 TV^2: so KL >= 0, and 0 only for equal distributions."""
    p, q = pair
    value = float(kl(p, q))
    total_variation = 0.5 * np.abs(p - q).sum()
    assert value >= 2 * total_variation**2 - 1e-12
    assert math.isinf(value) == bool(((p > 0) & (q == 0)).any())


@given(distributions(count=1))
def test_zero_for_equal_distributions(one):
    (p,) = one
    assert kl(p, p) == js(p, p) == js_distance(p, p) == 0


@given(distributions())
def test_js_is_symmetric_bounded_and_the_square_of_the_distance(pair):
    p, q = pair
    assert js(p, q) == js(q, p)
    assert 0 <= js(p, q) <= math.log(2)
    assert js_distance(p, q) ** 2 == pytest.approx(float(js(p, q)), rel=1e-12, abs=0)
    total_variation = 0.5 * np.abs(p - q).sum()
    assert js(p, q) >= total_variation**2 / 2 - 1e-12  # Pinsker on both halves
    assert js(p, q) <= total_variation * math.log(2) + 1e-12  # Lin 1991, theorem 3


@given(distributions(count=3))
def test_the_distance_is_a_metric_and_scipys(triple):
    p, q, r = triple
    assert js_distance(p, r) <= js_distance(p, q) + js_distance(q, r) + 1e-7
    # scipy's own mean underflows to 0 on subnormal entries and its square root may be NaN
    if min(p[p > 0].min(), q[q > 0].min()) > 1e-300 and np.abs(p - q).max() > 1e-6:
        assert float(js_distance(p, q)) == pytest.approx(jensenshannon(p, q), rel=1e-9)


def test_hand_computed():
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.25, 0.5])
    assert float(kl(p, q)) == pytest.approx(math.log(2))
    assert math.isinf(kl(q, p))
    # m = (3/8, 3/8, 1/4): KL(p, m) = ln(4/3); KL(q, m) = ln(2/3) / 2 + ln(2) / 2
    assert float(js(p, q)) == pytest.approx((math.log(4 / 3) + math.log(4 / 3) / 2) / 2)
    disjoint = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    assert float(js(*disjoint)) == pytest.approx(math.log(2), abs=0, rel=1e-15)


def test_batches_broadcast_over_leading_axes():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(7), size=(4, 3)), rng.dirichlet(np.ones(7), size=3)
    for function in (kl, js, js_distance):
        batch = function(p, q)
        assert batch.shape == (4, 3)
        assert batch[2, 1] == function(p[2, 1], q[1])
        assert function(p[0, 0], q[0]).shape == ()


def test_single_precision_distributions_are_taken():
    p = np.full(576, 1 / 576, dtype=np.float32)
    assert kl(p, p) == 0
    assert kl(p, p).dtype == np.float64


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([0.5, 0.6], "sums to 1.1"),
        ([0.0, 0.0], "sums to 0"),
        ([1.5, -0.5], "-0.5 < 0"),
        ([math.nan, 1.0], "NaN"),
        ([math.inf, 0.0], "NaN or infinity"),
    ],
)
@pytest.mark.parametrize("function", [kl, js, js_distance])
def test_what_is_no_distribution_is_refused_by_name(function, bad, message):
    good = np.array([0.5, 0.5])
    with pytest.raises(ValueError, match="p is not a distribution.*" + message):
        function(np.array(bad), good)
    with pytest.raises(ValueError, match="q is not a distribution"):
        function(good, np.array(bad))
