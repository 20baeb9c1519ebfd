"""Results that their dtype holds, also where an intermediate value leaves its range."""

from __future__ import annotations

from typing import Any

import mpsnn_loss as ml
import numpy as np
import pytest
from reference import losses

F = np.float32
BIG = F(3e38)

# loss, predictions, labels, arguments, the loss, its gradient of the first element
CASES: dict[str, tuple[str, list[float], list[float], dict[str, Any], float, float]] = {
    "a weight beyond float32": ("mean_squared_error", [1], [1], {"weight": 1e40}, 0, 0),
    "weights that cancel": (
        *("mean_squared_error", [1e5], [0]),
        *({"weights": F([1e30]), "weight": 1e-30}, 1e10, 2e5),
    ),
    "an epsilon below float32": ("log", [1e-30], [1], {"epsilon": 1e-50}, 30 * np.log(10), -1e30),
    "a square beyond float32": ("mean_squared_error", [1e20], [0], {"weight": 1e-5}, 1e35, 2e15),
    "a Huber loss of a large delta": ("huber", [2e19], [0], {"delta": 3e19}, 2e38, 2e19),
    "a linear Huber loss": ("huber", [3e38], [0], {"delta": 1e19, "weight": 1e-20}, 3e37, 0.1),
    "a hinge far outside": ("hinge", [-BIG], [1], {}, 3e38, -1),
    "a difference beyond float32": (
        *("mean_absolute_error", [BIG], [-BIG]),
        *({"weight": 1e-3}, 6e35, 1e-3),
    ),
    "a slope beyond float32": (
        *("mean_squared_error", [BIG], [-BIG]),
        *({"weight": 1e-40}, 3.6e37, 0.12),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_representable_result_survives_its_intermediates(name: str) -> None:
    loss_type, y, t, arguments, loss, slope = CASES[name]
    predictions, labels = F([[*y, *t]]), F([[*t, *t]])  # a second element without loss
    if "weights" in arguments:
        arguments = {**arguments, "weights": F([[*arguments["weights"], 1]])}
    given, gradient = ml.loss_and_gradient(
        predictions, labels, loss_type, reduction="sum", **arguments
    )
    double = ml.loss_and_gradient(
        predictions.astype(float), labels.astype(float), loss_type, reduction="sum", **arguments
    )
    assert given == pytest.approx(F(double[0]), rel=1e-6)
    assert gradient[0, 0] == pytest.approx(F(double[1][0, 0]), rel=1e-6)
    if loss_type not in ("hinge", "log", "huber"):
        assert given == pytest.approx(loss, rel=1e-6)
    assert gradient[0, 0] == pytest.approx(slope, rel=1e-5)


def test_a_mean_of_squares_near_the_largest_number() -> None:
    y = np.full((100, 100), 9e18, F)
    assert ml.loss(y, np.zeros_like(y), "mean_squared_error") == pytest.approx(8.1e37, rel=1e-6)


def test_one_overflow_does_not_touch_the_results_beside_it() -> None:
    rng = np.random.default_rng(0)
    y, t = rng.normal(size=(2, 64, 40)).astype(F)
    gradient = ml.loss_gradient(y, t, "mean_squared_error", reduction="none")
    far = y.copy()
    far[3, 5], t[3, 5] = BIG, -BIG
    beside = ml.loss_gradient(far, t, "mean_squared_error", reduction="none")
    assert np.isposinf(beside[3, 5])
    beside[3, 5] = gradient[3, 5]
    np.testing.assert_array_equal(beside, gradient)


@pytest.mark.parametrize("channels", [1, 2, 40])
def test_sums_of_many_rows_in_float64(channels: int) -> None:
    rng = np.random.default_rng(1)
    y = rng.normal(size=(1 << 16, channels))
    t = np.eye(channels)[rng.integers(channels, size=len(y))]
    for loss_type in ("softmax_cross_entropy", "cosine_distance"):
        rows = ml.loss(y, t, loss_type, reduction="sum", reduce_across_batch=False)
        exact = float(np.sum(rows.astype(np.longdouble)))
        given = ml.loss(y, t, loss_type, reduction="sum")
        assert given == pytest.approx(exact, rel=1e-13, abs=1e-13 * float(np.abs(rows).sum()))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_an_infinite_logit_gives_what_the_formula_says(dtype: str) -> None:
    values = np.array([-np.inf, -1, -0.0, 0, 0.5, 1, 2, np.inf, np.nan])
    y, t = np.meshgrid([np.inf, -np.inf], values)
    y, t = y.astype(dtype), t.astype(dtype)
    call = losses.make_call(
        y[:, None, None], t[:, None, None], "sigmoid_cross_entropy", reduction="none"
    )
    given = ml.loss(y, t, "sigmoid_cross_entropy", reduction="none")
    np.testing.assert_array_equal(given, call.forward().reshape(y.shape))


def test_the_reference_knows_rows_without_channels() -> None:
    nothing = np.zeros((2, 1, 1, 0))
    for name, formula in losses.LOSSES.items():
        reduction = "sum" if formula.per_pixel else "mean"
        call = losses.make_call(nothing, nothing, name, reduction=reduction, label_smoothing=0.1)
        assert call.gradient().shape == nothing.shape
        assert call.forward().shape == (2,)
