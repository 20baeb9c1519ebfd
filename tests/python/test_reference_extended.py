"""The reference of weights by name, divisors, the Hessian and other layouts, held to plain words.

Its gradients are the differences of its losses, and its Hessian is that of its gradients.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from asked import LAYOUTS, WEIGHT_KINDS, WITH_DIVISOR, Asked, drawn, reductions_of
from mpsnn_loss._reference.tolerances import error_ratios
from reference import losses

STEP = 1e-5
RELATIVE_ERROR = 1e-7  # of central differences


def smooth_calls(name: str) -> list[Asked]:
    """Calls away from the edges, with every kind of weights and each divisor."""
    combinations = product(reductions_of(name), (True, False), WEIGHT_KINDS)
    calls = [
        drawn(seed, name, "float64", LAYOUTS[seed % len(LAYOUTS)], *combination)
        for seed, combination in enumerate(combinations)
    ]
    return [
        each if each.has_indices else each.having(labels=np.maximum(each.arguments["labels"], 0.01))
        for each in calls
    ]


def far_from_kinks(asked: Asked) -> losses.Array:
    call = asked.call
    if call.formula.kink is None:
        return np.ones(call.predictions.shape, bool)
    return call.formula.kink(call.predictions, call.labels, call) > 10 * STEP


def moved(asked: Asked, name: str, at: tuple[int, ...], step: float) -> Asked:
    array = asked.arguments[name].copy()
    array[at] += step
    return asked.having(**{name: array})


def total(asked: Asked) -> float:
    """L, of which the source gradient is the derivative with respect to the forward result."""
    g = asked.arguments.get("source_gradient")
    loss, _ = asked.expected("loss")
    return float((loss * (1.0 if g is None else g)).sum())


@pytest.mark.parametrize("name", losses.LOSSES)
def test_gradient_is_the_difference_of_the_loss_and_hessian_that_of_the_gradient(name: str) -> None:
    compared = 0
    for asked in smooth_calls(name):
        smooth = asked.layout.from_images(far_from_kinks(asked))
        value = {key: asked.expected(key)[0] for key in ("predictions", "hessian")}
        scale = {key: np.abs(array).max(initial=1e-3) for key, array in value.items()}
        every_fifth = list(np.ndindex(smooth.shape))[::5]
        for at in (index for index in every_fifth if smooth[index]):
            up, down = (moved(asked, "predictions", at, step) for step in (STEP, -STEP))
            slope = (total(up) - total(down)) / (2 * STEP)
            bound = RELATIVE_ERROR * (scale["predictions"] + abs(total(up)))
            assert abs(slope - value["predictions"][at]) <= bound, (at, str(asked))
            bend = up.expected("predictions")[0][at] - down.expected("predictions")[0][at]
            bound = 10 * RELATIVE_ERROR * (scale["hessian"] + scale["predictions"])
            assert abs(bend / (2 * STEP) - value["hessian"][at]) <= bound, (at, str(asked))
            compared += 1
        for at in every_fifth[::2] if "labels" in asked.wrt else []:
            if smooth[at]:
                up, down = (moved(asked, "labels", at, step) for step in (STEP, -STEP))
                slope, by_labels = (total(up) - total(down)) / (2 * STEP), asked.expected("labels")
                bound = RELATIVE_ERROR * (np.abs(by_labels[0]).max() + abs(total(up)) + 1e-3)
                assert abs(slope - by_labels[0][at]) <= bound, (at, str(asked))
    assert compared >= 30


def test_hessian_in_closed_form() -> None:
    y, t = np.array([[[[0.25, 0.5, -3.0]]]]), np.array([[[[1.0, 0.0, 0.5]]]])
    expected = {
        "mean_absolute_error": [0, 0, 0],
        "mean_squared_error": [2, 2, 2],
        "huber": [1, 1, 0],
        "hinge": [0, 0, 0],
        "kullback_leibler_divergence": [0, 0, 0],
        "categorical_cross_entropy": [16, 0, 0.5 / 9],
        "log": [16, 4, 0.5 / 9 + 0.5 / 16],
        "sigmoid_cross_entropy": [s * (1 - s) for s in 1 / (1 + np.exp(-y.ravel()))],
        "softmax_cross_entropy": [
            p * (1 - p) * 1.5 for p in np.exp(y.ravel()) / np.exp(y.ravel()).sum()
        ],
    }
    for name, values in expected.items():
        actual = losses.hessian(y, t, name, reduction="sum", epsilon=0.0)
        np.testing.assert_allclose(actual.ravel(), values, rtol=1e-14, err_msg=name)
    assert expected.keys() | {"cosine_distance"} == losses.LOSSES.keys()


def test_hessian_keeps_its_digits_and_its_zeros() -> None:
    def at(name: str, y: Any, t: Any, **properties: Any) -> list[float]:
        row = (np.array([[[values]]], np.float64) for values in (y, t))
        return list(losses.hessian(*row, name, reduction="sum", **properties).ravel())

    small = float(np.exp(-40.0))
    one_hot = at("softmax_cross_entropy", [40, 0], [1, 0])
    np.testing.assert_allclose(one_hot, [small, small], rtol=1e-14)
    assert at("softmax_cross_entropy", [5], [1]) == [0]
    assert at("sigmoid_cross_entropy", [800, -800, np.inf], [1, 0, 0]) == [0, 0, 0]
    np.testing.assert_allclose(at("sigmoid_cross_entropy", [40, -40], [1, 1]), [small] * 2)
    assert at("log", [0.0, 1.0, np.nan], [0, 1, 0], epsilon=0.0)[:2] == [1, 1]
    assert at("categorical_cross_entropy", [0.0, 0.0, np.nan], [0, 1, 0]) == [0, np.inf, 0]
    assert at("mean_squared_error", [np.nan, np.inf], [0, 0]) == [2, 2]
    for name in ("mean_absolute_error", "hinge", "kullback_leibler_divergence", "cosine_distance"):
        assert at(name, [np.nan, np.inf], [0, 0]) == [0, 0]
    assert np.isnan(at("huber", [np.nan, np.inf, 0.5], [0, 0, 0])).tolist() == [True, False, False]
    assert at("huber", [1.0, -1.0, 1.5], [0, 0, 0]) == [1, 1, 0]


def test_an_exact_0_among_weights_wins_and_no_product_becomes_0() -> None:
    zeros = np.zeros((2, 1, 1, 3))
    factors = {
        "weights": np.array([[[[np.nan, np.inf, 1.0]]], [[[1e-200, -1e-200, 0.0]]]]),
        "sample_weight": [0.0, 1e-200],
        "class_weight": [1.0, 1.0, np.nan],
    }
    v = losses.make_call(zeros, zeros, "huber", **factors).element_weights
    tiny = np.finfo(np.float64).smallest_subnormal
    assert v.reshape(2, 3).tolist() == [[0, 0, 0], [tiny, -tiny, 0]]


def test_divisor_of_mean_by_weights() -> None:
    t = np.array([[1.0, 0.0, 0.0], [0.25, 0.0, 0.5]]).reshape(2, 1, 1, 3)
    v = np.array([[2.0, np.inf, 1.0], [4.0, 3.0, -6.0]]).reshape(2, 1, 1, 3)

    def divisors(name: str, **properties: Any) -> list[float]:
        properties |= {"reduction": "mean_by_weights", "weights": v}
        return losses.make_call(np.zeros(t.shape), t, name, **properties).divisors.tolist()

    for name in ("softmax_cross_entropy", "categorical_cross_entropy"):
        assert divisors(name, reduce_across_batch=False) == [2, -2]
        assert divisors(name) == [0, 0]
        assert divisors(name, label_smoothing=0.5, reduce_across_batch=False) == [2, -2]
        assert divisors(name, divisor=3) == [3, 3]
        assert divisors(name, sample_weight=[0, 1]) == [-2, -2]
    v[0, 0, 0, 1] = 1
    assert divisors("huber", reduce_across_batch=False) == [4, 1]
    assert divisors("huber") == [5, 5]
    assert divisors("huber", class_weight=[0, 1, 0]) == [4, 4]


@pytest.mark.parametrize("name", losses.LOSSES)
def test_a_divisor_of_0_gives_0_whatever_the_values(name: str) -> None:
    if losses.LOSSES[name].per_pixel:
        return
    nan = np.full((2, 1, 1, 3), np.nan)
    for reduction, across in product(WITH_DIVISOR, (True, False)):
        call = losses.make_call(
            nan, nan, name, reduction=reduction, reduce_across_batch=across, divisor=0
        )
        assert not call.forward().any()
        assert not call.gradient().any()
        assert not call.hessian().any()
        nothing = np.zeros((2, 0, 1, 3))
        for divisor in (0, 5):
            shard = losses.make_call(nothing, nothing, name, reduction=reduction, divisor=divisor)
            assert shard.forward().tolist() == [0, 0]
            assert shard.reduction_divisor() == 0


def test_what_has_no_divisor_says_so() -> None:
    y = np.zeros((1, 1, 1, 2))
    for reduction in ("none", "sum"):
        with pytest.raises(ValueError, match="divisor"):
            losses.make_call(y, y, "huber", reduction=reduction, divisor=1.0)
        with pytest.raises(ValueError, match="divisor"):
            losses.make_call(y, y, "huber", reduction=reduction).reduction_divisor()
    with pytest.raises(ValueError, match="divisor"):
        losses.make_call(y, y, "huber", divisor=float("nan"))
    call = losses.make_call(y, y, "softmax_cross_entropy", reduction="mean_by_weights")
    with pytest.raises(ValueError, match="labels"):
        call.gradient(wrt="labels")


@pytest.mark.parametrize(("shape", "axis"), LAYOUTS)
def test_a_layout_brings_back_what_it_took(shape: tuple[int, ...], axis: int) -> None:
    layout = losses.Layout(shape, axis)
    array = np.arange(np.prod(shape)).reshape(shape)
    images = layout.to_images(array)
    assert images.shape == layout.images
    np.testing.assert_array_equal(layout.from_images(images), array)
    first_pixel = (
        array if array.ndim == 1 else np.moveaxis(array, axis, -1)[(0,) * (len(shape) - 1)]
    )
    np.testing.assert_array_equal(images[0, 0, 0], first_pixel)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_result_of_16_bits_stands_for_what_rounds_to_it(dtype: str) -> None:
    stored: Any = np.float16
    if dtype == "bfloat16":
        stored = pytest.importorskip("ml_dtypes").bfloat16
    bits = np.arange(2**16, dtype=np.uint16)
    every = bits.view(stored)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        wide = every.astype(np.float64)
    assert not error_ratios(every, wide, 1e-300).any()
    finite = np.isfinite(wide) & (wide != 0)
    number, up = wide[finite], wide[finite] * (1 + 2.0**-12)
    # The distance to what rounds to a number is less than that to the number.
    for value in (up, number - (up - number)):
        assert (error_ratios(every[finite], value, 1.0) < np.abs(value - number)).all()
    far = error_ratios(every[finite], number * 1.5, 1.0)
    normal = np.abs(number) > float(np.abs(number).min()) * 2**12
    assert (far[normal] > 0.4 * np.abs(number[normal])).all()
    nan = np.array([np.nan]).astype(stored)
    assert error_ratios(nan, [np.nan], 1.0).tolist() == [0]
    assert error_ratios(nan, [1.0], 1.0).tolist() == [np.inf]
    largest = number.max()
    edge = largest + (largest - np.unique(number)[-2]) / 2
    infinity = np.array([np.inf, np.inf]).astype(stored)
    assert (error_ratios(infinity, [edge, 1e300], 1.0) == 0).all()
    assert (error_ratios(infinity, [largest, -1e300], 1.0) > 0).all()
