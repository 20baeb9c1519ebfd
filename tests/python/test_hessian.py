"""`loss_gradient_and_hessian`: the diagonal of the Hessian with respect to the predictions.

The CPU engine has it; other devices refuse it in a sentence.
"""

from __future__ import annotations

import inspect
from itertools import product
from typing import Any

import mpsnn_loss as ml
import numpy as np
import pytest
from asked import (
    COPIED,
    INDEX_LOSSES,
    LARGE,
    LAYOUTS,
    NAMES,
    STRIDED,
    Asked,
    assert_as_the_reference,
    assert_same_bits,
    cells,
    compute_type,
    drawn,
    laid_out,
    reductions_of,
)
from conftest import Tally
from reference import losses

MSE = "mean_squared_error"
SOFTMAX = "softmax_cross_entropy"
NOT_CURVED = ("mean_absolute_error", "hinge", "cosine_distance", "kullback_leibler_divergence")
CPU = ml.cpu_device()
DTYPES = ["float32", "float16", "float64"]

each_loss = pytest.mark.parametrize("name", NAMES)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def hessian(*arrays: Any, **options: Any) -> Any:
    return ml.loss_gradient_and_hessian(*arrays, **options)[1]


@each_loss
@each_dtype
def test_hessian_in_every_cell(name: str, dtype: str, tally: Tally) -> None:
    """Every axis, reduction, kind of weights; the gradient has the bits of `loss_gradient`."""
    for call in cells(name, dtype):
        gradient, second = ml.loss_gradient_and_hessian(**call.arguments)
        assert_as_the_reference(call, {"predictions": gradient, "hessian": second}, tally)
        alone = ml.loss_gradient(**call.arguments)
        assert_same_bits({"gradient": gradient}, {"gradient": alone}, call)


@each_loss
@each_dtype
def test_hessian_of_large_arrays(name: str, dtype: str, tally: Tally) -> None:
    sizes = [*LARGE, ((3, 70, 130), -1), ((7, 1025), 1), ((40, 40, 2), 2), ((65537,), 0)]
    for seed, (where, reduction) in enumerate(product(sizes, reductions_of(name)[-1:])):
        call = drawn(seed, name, dtype, where, reduction, True)
        gradient, second = ml.loss_gradient_and_hessian(**call.arguments)
        assert_as_the_reference(call, {"predictions": gradient, "hessian": second}, tally)


@each_loss
def test_hessian_is_the_difference_of_gradients(name: str) -> None:
    """Central differences of `loss_gradient` in float64, one element at a time."""
    step = 1e-5
    for seed, reduction in enumerate(reductions_of(name)):
        call = drawn(seed, name, "float64", ((3, 5, 2), 1), reduction, bool(seed % 2))
        if not call.has_indices:
            call = call.having(labels=np.maximum(call.arguments["labels"], 0.01))
        y, kink = call.arguments["predictions"], call.call.formula.kink
        smooth = np.ones(y.shape, bool)
        if kink is not None:
            distance = kink(call.call.predictions, call.call.labels, call.call)
            smooth = call.layout.from_images(distance) > 10 * step
        _, second = ml.loss_gradient_and_hessian(**call.arguments)
        for at in (index for index in np.ndindex(y.shape) if smooth[index]):
            sides = []
            for side in (step, -step):
                moved = y.copy()
                moved[at] += side
                sides.append(ml.loss_gradient(**call.having(predictions=moved).arguments)[at])
            difference = (sides[0] - sides[1]) / (2 * step)
            scale = np.abs(second).max() + np.abs(sides).max()
            assert abs(difference - second[at]) <= 1e-6 * scale, (at, str(call))


@each_loss
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_hessian_at_zeros_infinities_and_nan(name: str, dtype: str, tally: Tally) -> None:
    special = np.array([0.0, 1.0, 0.25, -0.5, 2.0, 37.0, -104.0, np.inf, -np.inf, np.nan])
    rng = np.random.default_rng(1)
    shape = (300, 4)
    y = rng.choice(special, shape).astype(dtype)
    t = rng.choice([0.0, 0.0, 1.0, 0.25, 2.0, np.nan], shape).astype(dtype)
    w = rng.choice([0.0, 1.0, 2.0], shape[0]).astype(dtype)
    for reduction in reductions_of(name)[:2]:
        call = Asked({"predictions": y, "labels": t, "loss_type": name, "reduction": reduction,
                      "epsilon": 0.0, "delta": 0.5, "sample_weight": w})  # fmt: skip
        second = hessian(**call.arguments)
        assert_as_the_reference(call, {"hessian": second}, tally)
        assert not second[w == 0].any()


def test_constants_do_not_look_at_the_predictions() -> None:
    y = np.array([np.nan, np.inf, -np.inf, 0.0])
    t = np.array([1.0, np.nan, 0.0, 0.5])
    assert hessian(y, t, MSE, reduction="sum").tolist() == [2] * 4
    for name in NOT_CURVED:
        assert hessian(y, t, name, reduction="sum").tolist() == [0] * 4, name
    assert np.isnan(hessian(y, t, "huber", reduction="sum")).tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_softmax_hessian_keeps_its_digits_where_p_is_near_1(dtype: str, tally: Tally) -> None:
    """1 - p is the sum of the other exponentials, not a difference."""
    rng = np.random.default_rng(2)
    for classes, deviation in product((1, 2, 3, 5, 8, 17, 64, 300, 1025), (1, 8, 30, 60)):
        y = (deviation * rng.normal(size=(50, classes))).astype(dtype)
        indices = rng.integers(0, classes, 50)
        for labels in (indices, np.eye(classes)[indices].astype(dtype)):
            call = Asked({"predictions": y, "labels": labels, "loss_type": SOFTMAX,
                          "reduction": "sum"})  # fmt: skip
            second = hessian(**call.arguments)
            assert_as_the_reference(call, {"hessian": second}, tally)
            assert (second >= 0).all()
            if classes == 1:
                assert not second.any()
    second = hessian(np.array([[40.0, 0.0]], dtype), np.array([0]), SOFTMAX, reduction="sum")
    np.testing.assert_allclose(second, np.exp([[-40.0, -40.0]]), rtol=1e-5)


def test_boosting_gets_p_times_1_minus_p() -> None:
    """As objectives of XGBoost and LightGBM ask for it: not reduced, one weight per row."""
    rng = np.random.default_rng(3)
    y, t, w = rng.normal(size=20), rng.integers(0, 2, 20), rng.uniform(0.5, 2, 20)
    gradient, second = ml.loss_gradient_and_hessian(
        y[:, None], t[:, None], "sigmoid_cross_entropy", reduction="none", sample_weight=w
    )
    p = 1 / (1 + np.exp(-y))
    np.testing.assert_allclose(gradient[:, 0], w * (p - t), rtol=1e-12)
    np.testing.assert_allclose(second[:, 0], w * p * (1 - p), rtol=1e-12)


@each_loss
@each_dtype
def test_any_strides_give_the_bits_of_a_contiguous_copy(name: str, dtype: str) -> None:
    for seed, (where, lay) in enumerate(product(LAYOUTS[1:], (STRIDED | COPIED).values())):
        reduction = reductions_of(name)[-1 - seed % 2 if name != "cosine_distance" else 0]
        call = drawn(seed, name, dtype, where, reduction, True)
        expected = hessian(**call.arguments)
        laid = laid_out(call, lambda _, lay=lay: lay)
        assert_same_bits({"hessian": hessian(**laid.arguments)}, {"hessian": expected}, call)


def test_class_indices_equal_one_hot_labels(tally: Tally) -> None:
    for name, (shape, axis), reduction in product(INDEX_LOSSES, LAYOUTS, ("mean", "none")):
        call = drawn(4, name, "float32", (shape, axis), reduction, True, "none")
        layout = losses.Layout(shape, axis)
        indices = np.random.default_rng(5).integers(0, layout.channels, layout.pixels)
        call = call.having(labels=indices, ignore_index=0)
        second = hessian(**call.arguments)
        assert_as_the_reference(call, {"hessian": second}, tally)
        ignored = np.broadcast_to(np.expand_dims(indices == 0, axis), shape)
        assert not second[ignored].any()


def test_threads_change_no_bit() -> None:
    before = ml.get_num_threads()
    try:
        for name, where in product((SOFTMAX, "log"), LARGE):
            call = drawn(6, name, "float32", where, "mean", True)
            results = []
            for threads in (1, 2, 7):
                ml.set_num_threads(threads)
                results.append(hessian(**call.arguments))
            for other in results[1:]:
                assert_same_bits({"hessian": other}, {"hessian": results[0]}, call)
    finally:
        ml.set_num_threads(before)


@each_dtype
def test_results_are_fresh_arrays_or_the_destinations(dtype: str) -> None:
    y, t = np.full((2, 3, 4), 0.25, dtype), np.full((2, 3, 4), 0.5, dtype)
    gradient, second = ml.loss_gradient_and_hessian(y, t, "log", axis=1)
    assert (second.shape, second.dtype) == (gradient.shape, gradient.dtype) == (y.shape, y.dtype)
    assert second.flags.c_contiguous
    out, hessian_out = np.full_like(y, -7), np.full_like(y, -7)
    returned = ml.loss_gradient_and_hessian(y, t, "log", axis=1, out=out, hessian_out=hessian_out)
    assert returned[0] is out
    assert returned[1] is hessian_out
    assert_same_bits({"g": out, "h": hessian_out}, {"g": gradient, "h": second})
    hessian_out[:] = -7
    returned = ml.loss_gradient_and_hessian(y, t, "log", axis=1, hessian_out=hessian_out)
    assert returned[1] is hessian_out
    assert returned[0] is not out
    assert_same_bits({"g": returned[0], "h": hessian_out}, {"g": gradient, "h": second})


def test_narrow_predictions_take_wide_destinations(tally: Tally) -> None:
    call = drawn(7, SOFTMAX, "float16", ((3, 5, 2), 1), "mean", True)
    out, hessian_out = (np.full((3, 5, 2), np.nan, np.float32) for _ in range(2))
    ml.loss_gradient_and_hessian(**call.arguments, out=out, hessian_out=hessian_out)
    for key, actual in (("predictions", out), ("hessian", hessian_out)):
        tally.add("float32", losses.assert_within(actual, *call.expected(key), key), SOFTMAX)


def memory_of(shape: tuple[int, ...]) -> np.ndarray:
    return np.zeros(int(np.prod(shape)) + 1, np.float32)


@pytest.mark.parametrize("name", ["predictions", "labels", "weights", "sample_weight",
                                  "class_weight", "source_gradient", "out"])  # fmt: skip
def test_hessian_out_shares_memory_with_nothing(name: str) -> None:
    """Not even exactly that of the predictions, as `out` may."""
    y = np.full((3, 3), 0.5, np.float32)
    arguments: dict[str, Any] = {"predictions": y, "labels": y, "loss_type": MSE}
    arguments["reduction"] = "none"
    for shift in (0, 1):
        memory = memory_of((3, 3))
        other = memory[: 3 if name in ("sample_weight", "class_weight") else 9]
        other = other.reshape(-1) if other.size == 3 else other.reshape(3, 3)
        hessian_out = memory[shift : shift + 9].reshape(3, 3)
        given = arguments | {name: other, "hessian_out": hessian_out}
        with pytest.raises(ValueError, match=r"^(hessian_)?out must"):
            ml.loss_gradient_and_hessian(**given)
        assert not memory.any()


def test_hessian_out_of_another_kind_is_refused() -> None:
    y = np.full((2, 3), 0.5, np.float32)
    frozen = np.zeros((2, 3), np.float32)
    frozen.flags.writeable = False
    for wrong, error in (
        (np.zeros((3, 2), np.float32), ValueError),
        (np.zeros((2, 3), np.float64), TypeError),
        (np.zeros((2, 3), np.float16), TypeError),
        (frozen, ValueError),
        ([0.0], TypeError),
        (np.zeros((2, 3), ">f4"), (TypeError, ValueError)),
    ):
        with pytest.raises(error, match=r"^hessian_out"):
            ml.loss_gradient_and_hessian(y, y, MSE, hessian_out=wrong)


def test_arguments_are_those_of_loss_gradient_but_wrt() -> None:
    first = inspect.signature(ml.loss_gradient).parameters
    second = inspect.signature(ml.loss_gradient_and_hessian).parameters
    assert set(second) == set(first) - {"wrt"} | {"hessian_out"}
    y = np.full((2, 3), 0.5, np.float32)
    with pytest.raises(TypeError, match="wrt"):
        ml.loss_gradient_and_hessian(y, y, MSE, wrt="predictions")


def test_gradients_and_hessians_have_no_elements_of_nothing() -> None:
    for shape, name in product([(0, 3), (2, 0), (0,)], NAMES):
        nothing = np.zeros(shape, np.float32)
        for result in ml.loss_gradient_and_hessian(nothing, nothing, name, reduction="sum"):
            np.testing.assert_array_equal(result, nothing, strict=True)


def test_other_devices_refuse_it_in_a_sentence() -> None:
    others = [device for device in ml.devices() if device.kind != "cpu"]
    if not others:
        pytest.skip("only the CPU engine is here")
    y = np.full((2, 3), 0.5, np.float32)
    with pytest.raises((ValueError, TypeError), match=r"(?i)hessian"):
        ml.loss_gradient_and_hessian(y, y, MSE, device=others[0])


def test_compute_types_of_hessians() -> None:
    """float16 is what float32 gives, rounded once."""
    for seed, name in enumerate(NAMES):
        call = drawn(seed, name, "float16", ((3, 5, 2), 1), "sum", True)
        wide = call.arguments["predictions"].astype(compute_type("float16"))
        labels = call.arguments["labels"]
        labels = labels if call.has_indices else labels.astype(np.float32)
        single = hessian(**call.having(predictions=wide, labels=labels).arguments)
        with np.errstate(over="ignore"):
            expected = single.astype(np.float16)
        assert_same_bits({"hessian": hessian(**call.arguments)}, {"hessian": expected}, call)
