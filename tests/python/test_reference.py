"""The reference itself: its gradients are the finite differences of its losses."""

from __future__ import annotations

from itertools import product
from typing import Any

import mpsnn_loss as ml
import numpy as np
import pytest
from mpsnn_loss._reference.tolerances import error_ratios
from reference import losses

SHAPE = (2, 1, 2, 3)
STEP = 1e-5
# Central differences: STEP² times the third derivative, and rounding divided by STEP.
RELATIVE_ERROR = 1e-7


def test_every_loss_of_the_enumeration_has_a_reference() -> None:
    assert set(losses.LOSSES) == {member.name.lower() for member in ml.MPSCNNLossType}


def test_every_reduction_of_the_enumeration_is_checked_here() -> None:
    assert set(REDUCTIONS) == {member.name.lower() for member in ml.MPSCNNReductionType}


REDUCTIONS = ["none", "sum", "mean", "sum_by_non_zero_weights"]
REDUCTIONS_OF = {
    name: ["sum"] if formula.per_pixel else REDUCTIONS for name, formula in losses.LOSSES.items()
}


def weights(rng: np.random.Generator, kind: str, per_pixel: bool) -> losses.Array | None:
    if kind == "none":
        return None
    values = rng.uniform(0.5, 2, (*SHAPE[:3], 1 if per_pixel else SHAPE[3]))
    if kind == "with zeros":
        values[0, 0, 0] = 0  # a whole pixel
        values[1, 0, 1, 0] = 0  # with channels, one of a pixel
    return values


def total(arrays: dict[str, losses.Array], g: losses.Array, call: dict[str, Any]) -> float:
    """L, of which the source gradient g is the derivative with respect to the forward result."""
    return losses.exact_sum(g * losses.forward(**arrays, **call))


def finite_difference(
    arrays: dict[str, losses.Array], wrt: str, g: losses.Array, call: dict[str, Any]
) -> losses.Array:
    result = np.empty(SHAPE)
    for index in np.ndindex(*SHAPE):
        sides = []
        for step in (STEP, -STEP):
            moved = arrays[wrt].copy()
            moved[index] += step
            sides.append(total({**arrays, wrt: moved}, g, call))
        result[index] = (sides[0] - sides[1]) / (2 * STEP)
    return result


@pytest.mark.parametrize("wrt", ["predictions", "labels"])
@pytest.mark.parametrize("name", losses.LOSSES)
def test_gradient_is_the_finite_difference_of_the_forward_loss(name: str, wrt: str) -> None:
    formula = losses.LOSSES[name]
    smoothings = [0.0] if formula.smoothing_level is None else [0.0, 0.2]
    cells = product(REDUCTIONS_OF[name], (False, True), ("none", "all", "with zeros"), smoothings)
    for seed, (reduction, across, kind, smoothing) in enumerate(cells):
        rng = np.random.default_rng(seed)
        y, t = formula.inputs(rng, SHAPE)
        t = np.where(rng.random(SHAPE) < 0.5, t, rng.uniform(0.1, 0.9, SHAPE))
        t = np.maximum(t, 1e-2)  # the logarithm of a label has no two-sided difference at 0
        g = rng.normal(0, 1, SHAPE if reduction == "none" else SHAPE[0])
        call: dict[str, Any] = {
            "loss_type": name,
            "reduction": reduction,
            "reduce_across_batch": across,
            "weights": weights(rng, kind, formula.per_pixel),
            "weight": 1.7,
            "label_smoothing": smoothing,
            "number_of_classes": 5,
            "epsilon": 1e-3,
            "delta": 0.8,
        }
        arrays = {"predictions": y, "labels": t}
        actual = losses.gradient(**arrays, **call, source_gradient=g, wrt=wrt)
        expected = finite_difference(arrays, wrt, g, call)
        smooth = np.ones(SHAPE, bool)
        if formula.kink is not None:
            distance = formula.kink(y, t, losses.make_call(**arrays, **call))
            smooth = distance > 10 * STEP
        assert smooth.mean() > 0.5
        scale = np.abs(expected).max() + abs(total(arrays, np.abs(g), call))
        error = np.abs(actual - expected)[smooth].max()
        assert error <= RELATIVE_ERROR * scale, (reduction, across, kind, smoothing, error / scale)
        assert np.abs(expected).max() > 0


def test_divisor_of_each_reduction() -> None:
    v = np.ones((2, 2, 2, 3))
    v[0, 0, 0, 0] = 0
    v[1, 1, :, :] = 0
    zeros = np.zeros(v.shape)

    def divisors(name: str, reduction: str, across: bool) -> list[float]:
        call = losses.make_call(
            zeros, zeros, name, weights=v, reduction=reduction, reduce_across_batch=across
        )
        return call.divisors.tolist()

    assert divisors("huber", "none", True) == [1, 1]
    assert divisors("huber", "sum", True) == [1, 1]
    assert divisors("huber", "mean", False) == [12, 12]
    assert divisors("huber", "mean", True) == [24, 24]
    assert divisors("huber", "sum_by_non_zero_weights", False) == [11, 6]
    assert divisors("huber", "sum_by_non_zero_weights", True) == [17, 17]
    assert divisors("softmax_cross_entropy", "mean", False) == [4, 4]
    assert divisors("softmax_cross_entropy", "mean", True) == [8, 8]
    assert divisors("softmax_cross_entropy", "sum_by_non_zero_weights", False) == [4, 2]
    assert divisors("softmax_cross_entropy", "sum_by_non_zero_weights", True) == [6, 6]


@pytest.mark.parametrize("name", losses.LOSSES)
def test_nothing_leaks_from_an_element_without_weight(name: str) -> None:
    """NaN and infinities where v is 0 change neither the loss nor any gradient."""
    formula = losses.LOSSES[name]
    y, t = formula.inputs(np.random.default_rng(0), (2, 1, 3, 4))
    v = np.ones((2, 1, 3, 1))
    v[0, 0, 1] = v[1, 0, 0] = 0
    poisoned_y, poisoned_t = np.where(v == 0, np.nan, y), np.where(v == 0, np.inf, t)
    for reduction, across in product(REDUCTIONS_OF[name], (False, True)):
        call: dict[str, Any] = {"reduction": reduction, "reduce_across_batch": across, "weights": v}
        clean = losses.make_call(y, t, name, **call)
        poisoned = losses.make_call(poisoned_y, poisoned_t, name, **call)
        np.testing.assert_array_equal(poisoned.forward(), clean.forward())
        for wrt in ("predictions", "labels"):
            gradient = clean.gradient(wrt=wrt)
            np.testing.assert_array_equal(poisoned.gradient(wrt=wrt), gradient)
            zero = np.broadcast_to(v == 0, gradient.shape)
            assert not gradient[zero].any()
            assert gradient[~zero].any()


def test_a_float16_infinity_stands_for_all_that_rounds_to_it() -> None:
    """From 65520 on; the error of another value is its distance to there."""
    actual = np.array([np.inf, np.inf, -np.inf, np.inf], np.float16)
    expected = np.array([65520.0, 1e30, -1e30, 65500.0])
    assert error_ratios(actual, expected, 10.0).tolist() == [0, 0, 0, 2]


@pytest.mark.parametrize("shape", [(0, 1, 1, 2), (2, 0, 1, 2), (2, 1, 1, 0)], ids=str)
@pytest.mark.parametrize("name", losses.LOSSES)
def test_no_elements_have_the_values_that_the_functions_give(
    name: str, shape: tuple[int, ...]
) -> None:
    y = np.zeros(shape)
    for reduction in REDUCTIONS_OF[name]:
        options: dict[str, Any] = {"reduction": reduction}
        options |= {"label_smoothing": 0.1 if losses.LOSSES[name].smoothing_level else 0.0}
        for across in (True, False):
            options["reduce_across_batch"] = across
            call = losses.make_call(y, y, name, **options)
            given = np.asarray(ml.loss(y, y, name, **options))
            value = call.forward()
            bound = losses.forward_bound(call, "float64")
            if given.ndim == 0:  # no image, no result of it
                value, bound = value[:1].sum() if len(value) else given, bound[:1].sum()
            np.testing.assert_array_equal(given, value)
            assert not np.nan_to_num(bound).any()
            for wrt in ("predictions", "labels"):
                assert call.gradient(wrt=wrt).shape == shape
