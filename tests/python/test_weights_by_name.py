"""`sample_weight` and `class_weight`: they multiply each other and `weights`."""

from __future__ import annotations

from itertools import product
from typing import Any

import mpsnn_loss as ml
import numpy as np
import pytest
from asked import (
    INDEX_LOSSES,
    LARGE,
    LAYOUTS,
    WEIGHTS,
    Asked,
    drawn,
    eighths,
    reductions_of,
    skip_unless_supported,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import losses

MSE = "mean_squared_error"
SOFTMAX = "softmax_cross_entropy"
FUNCTIONS = [ml.loss, ml.loss_gradient, ml.loss_and_gradient]


def broadcast_product(call: Asked) -> Asked:
    """The same call with one array of weights, of the predictions' shape or one channel."""
    layout, reference = call.layout, call.call
    names = [name for name in WEIGHTS if name in call.arguments]
    v = layout.from_images(np.array(reference.element_weights))
    if reference.formula.per_pixel:
        v = np.take(v, [0], axis=layout.axis)
    return call.without(*names).having(weights=v.astype(call.dtype))


@pytest.mark.parametrize("kind", ["samples", "samples and classes", "all", "zeros"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_they_equal_their_product_in_weights(
    device: ml.Device, loss_type: ml.MPSCNNLossType, dtype: str, kind: str
) -> None:
    name = loss_type.name.lower()
    skip_unless_supported(device, name, dtype)
    combinations = product([*LAYOUTS, LARGE[0]], reductions_of(name))
    for seed, (where, reduction) in enumerate(combinations):
        call = drawn(seed, name, dtype, where, reduction, bool(seed % 2), kind)
        if call.has_indices:  # an ignored pixel has no weight in the product already
            call = call.having(ignore_index=None)
        in_one = broadcast_product(call)
        results, expected = call.results(device), in_one.results(device)
        for key, value in expected.items():
            bound = 2 * call.expected(key)[1]
            losses.assert_within(results[key], value.astype(np.float64), bound, f"{key} of {call}")


@pytest.mark.parametrize("where", [*LAYOUTS, *LARGE], ids=str)
def test_a_weight_per_sample_equals_one_for_each_of_its_pixels(
    device: ml.Device, where: tuple[tuple[int, ...], int]
) -> None:
    layout = losses.Layout(*where)
    for seed, name in enumerate((MSE, SOFTMAX, "sigmoid_cross_entropy")):
        for reduction in reductions_of(name):
            call = drawn(seed, name, "float32", where, reduction, False, "samples")
            w = call.arguments["sample_weight"]
            lone = w.reshape(w.shape[: len(layout.pixels)] + (1,) * (len(layout.pixels) - 1))
            spread = np.broadcast_to(lone, layout.pixels)
            each = call.having(sample_weight=np.array(spread))
            results, expected = each.results(device), call.results(device)
            for key, value in expected.items():
                bound = 2 * call.expected(key)[1]
                losses.assert_within(results[key], value.astype(np.float64), bound, str(call))


@settings(derandomize=True, deadline=None, max_examples=60, database=None)
@given(
    name=st.sampled_from([MSE, SOFTMAX, "categorical_cross_entropy", "huber"]),
    factors=st.lists(st.sampled_from(["weights", "sample_weight", "class_weight"]), unique=True),
    reduction=st.sampled_from(["none", "sum", "sum_by_non_zero_weights", "mean_by_weights"]),
    poison=st.sampled_from([np.nan, np.inf, -np.inf]),
)
def test_an_exact_0_wins_over_nan_and_infinity(
    device: ml.Device, name: str, factors: list[str], reduction: str, poison: float
) -> None:
    """Where one of the weights is 0, the others and the values may be anything."""
    skip_unless_supported(device, name)
    rng = np.random.default_rng(len(factors))
    y, t = rng.uniform(0.1, 0.9, (2, 4, 5, 3)).astype(np.float32)
    weights = {"weights": eighths(rng, (4, 5, 3)), "sample_weight": eighths(rng, (4, 5)),
               "class_weight": eighths(rng, (3,))}  # fmt: skip
    drawn_ones = {key: weights[key].astype(np.float32) for key in factors}
    # The last pixel of each sample weighs nothing.
    clean = {"weights": np.ones((1, 5, 1), np.float32)} | drawn_ones
    clean["weights"] = np.broadcast_to(clean["weights"], (4, 5, 3)).copy()
    clean["weights"][:, -1] = 0
    dirty = {key: value.copy() for key, value in clean.items()}
    if "sample_weight" in dirty:
        dirty["sample_weight"][:, -1] = poison
    dirty_y, dirty_t = y.copy(), t.copy()
    dirty_y[:, -1], dirty_t[:, -1] = poison, np.nan
    options: dict[str, Any] = {"loss_type": name, "reduction": reduction}
    want = Asked({"predictions": y, "labels": t, **options, **clean}).results(device)
    got = Asked({"predictions": dirty_y, "labels": dirty_t, **options, **dirty}).results(device)
    for key, value in want.items():
        np.testing.assert_array_equal(got[key], value, err_msg=key)
        assert np.isfinite(value).all()


@pytest.mark.parametrize(("dtype", "small"), [("float32", 1e-30), ("float16", 1e-30),
                                              ("float64", 1e-200)])  # fmt: skip
def test_a_product_that_is_not_0_still_counts(device: ml.Device, dtype: str, small: float) -> None:
    """It would round to 0; it becomes the smallest subnormal, so that D counts it."""
    skip_unless_supported(device, MSE, dtype)
    y, t = np.ones((4, 2), dtype), np.zeros((4, 2), dtype)
    sample_weight, class_weight = np.array([1, small, small, 0.0]), np.array([1, small])
    options: dict[str, Any] = {"sample_weight": sample_weight, "class_weight": class_weight}
    options |= {"loss_type": MSE, "reduction": "sum_by_non_zero_weights"}
    loss = ml.loss(y, t, **options, device=device)
    assert loss == pytest.approx(1 / 6, rel=1e-6)
    assert ml.reduction_divisor(y, t, **options) == 6


@pytest.mark.parametrize("name", INDEX_LOSSES)
def test_class_weights_of_class_indices_are_those_of_the_labels(
    device: ml.Device, name: str
) -> None:
    """As scikit-learn's class_weight: a pixel of class c counts class_weight[c] times."""
    skip_unless_supported(device, name)
    rng = np.random.default_rng(0)
    y = rng.uniform(0.1, 0.9, (6, 4)).astype(np.float32)
    t, w = rng.integers(0, 4, 6), eighths(rng, (4,)).astype(np.float32)
    arguments = {"loss_type": name, "reduction": "sum"}
    by_class = Asked({"predictions": y, "labels": t, "class_weight": w, **arguments})
    by_sample = Asked({"predictions": y, "labels": t, "sample_weight": w[t], **arguments})
    results = by_class.results(device)
    for key, value in by_sample.results(device).items():
        bound = 2 * by_class.expected(key)[1]
        losses.assert_within(results[key], value.astype(np.float64), bound, key)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_shapes_that_are_taken(device: ml.Device, function: Any) -> None:
    def call(shape: tuple[int, ...], axis: int, **weights: Any) -> None:
        y = np.full(shape, 0.5, np.float32)
        function(y, y, MSE, axis=axis, device=device, **weights)

    for of_one in (2.0, 3, np.float32(2), np.array(2.0), [2.0], np.ones(1), np.ones((), int)):
        call((4,), 0, sample_weight=of_one)
    for of_samples in (np.ones(3), [1, 2, 3], np.ones((3, 2)), np.ones((3, 2), bool), (1.0,) * 3):
        call((3, 5, 2), 1, sample_weight=of_samples)
    for of_classes in (np.ones(5), [1] * 5, np.ones(5, np.float16), np.ones(5, np.int64)):
        call((3, 5, 2), 1, class_weight=of_classes)
    call((3, 3), 1, sample_weight=np.ones(3), class_weight=np.ones(3))
    call((3, 5), 1, sample_weight=None, class_weight=None)


@pytest.mark.parametrize(
    ("shape", "axis", "weights", "pattern"),
    [
        ((3, 5), 1, {"sample_weight": (5,)}, r"^sample_weight must .*\(5,\)"),
        ((3, 5), 0, {"sample_weight": (3,)}, r"^sample_weight must .*\(3,\)"),
        ((5,), 0, {"sample_weight": (5,)}, r"^sample_weight must .*pass class_weight.*\(5,\)"),
        ((3, 5, 2), 1, {"sample_weight": (3, 5)}, r"^sample_weight must .*\(3, 5\)"),
        ((3, 5, 2), 1, {"sample_weight": (3, 1)}, r"^sample_weight must .*\(3, 1\)"),
        ((3, 5, 2), 1, {"sample_weight": (3, 5, 2)}, r"^sample_weight must .*\(3, 5, 2\)"),
        ((3, 5, 2), 1, {"sample_weight": (1,)}, r"^sample_weight must .*\(1,\)"),
        ((3, 5, 2), 1, {"sample_weight": ()}, r"^sample_weight must .*\(\)"),
        ((3, 5, 2), 1, {"class_weight": (3,)}, r"^class_weight must .*5.*got .*\(3,\)"),
        ((3, 5, 2), 1, {"class_weight": (2,)}, r"^class_weight must .*5.*got .*\(2,\)"),
        ((3, 5, 2), 1, {"class_weight": (5, 1)}, r"^class_weight must .*5.*got .*\(5, 1\)"),
        ((3, 5, 2), 1, {"class_weight": (1,)}, r"^class_weight must .*5.*got .*\(1,\)"),
        ((3, 5, 2), 1, {"class_weight": ()}, r"^class_weight must .*5.*got .*\(\)"),
        ((3, 5), 1, {"weights": (3,)}, r"^weights must .*pass sample_weight.*\(3,\)"),
        ((3, 5, 2), 1, {"weights": (3,)}, r"^weights must .*pass sample_weight.*\(3,\)"),
    ],
)  # fmt: skip
def test_shapes_that_are_refused(
    device: ml.Device,
    shape: tuple[int, ...],
    axis: int,
    weights: dict[str, tuple[int, ...]],
    pattern: str,
) -> None:
    y = np.full(shape, 0.5, np.float32)
    given = {key: np.ones(extents, np.float32) for key, extents in weights.items()}
    for function in FUNCTIONS:
        with pytest.raises(ValueError, match=pattern):
            function(y, y, MSE, axis=axis, device=device, **given)
    with pytest.raises(ValueError, match=pattern):
        ml.reduction_divisor(y, y, MSE, axis=axis, **given)


@pytest.mark.parametrize("name", ["sample_weight", "class_weight"])
@pytest.mark.parametrize("wrong", ["text", 1j, np.ones(3, object), np.ones(3, complex),
                                   np.ma.masked_array(np.ones(3), False)], ids=str)  # fmt: skip
def test_what_is_no_array_of_weights_is_a_type_error(
    device: ml.Device, name: str, wrong: Any
) -> None:
    y = np.full((3, 3), 0.5, np.float32)
    for function in FUNCTIONS:
        with pytest.raises(TypeError, match=rf"^{name}\b"):
            function(y, y, MSE, device=device, **{name: wrong})


def test_cosine_distance_has_no_class_weight(device: ml.Device) -> None:
    y = np.full((3, 5), 0.5, np.float32)
    for function in FUNCTIONS:
        with pytest.raises(ValueError, match=r"^class_weight\b"):
            function(y, y, "cosine_distance", reduction="sum", class_weight=np.ones(5, np.float32),
                     device=device)  # fmt: skip


@pytest.mark.parametrize("name", ["sample_weight", "class_weight"])
def test_a_destination_over_weights_is_refused(device: ml.Device, name: str) -> None:
    memory = np.ones(12, np.float32)
    y = np.full((3, 3), 0.5, np.float32)
    for function in (ml.loss_gradient, ml.loss_and_gradient):
        with pytest.raises(ValueError, match=r"^out must"):
            function(y, y, MSE, **{name: memory[:3]}, out=memory[2:11].reshape(3, 3), device=device)
    assert (memory == 1).all()
