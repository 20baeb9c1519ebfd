"""`divisor`, `reduction_divisor` and the reduction "mean_by_weights"."""

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
    NAMES,
    WEIGHT_KINDS,
    WITH_DIVISOR,
    Asked,
    assert_as_the_reference,
    assert_same_bits,
    drawn,
    skip_unless_supported,
)
from conftest import Tally
from reference import losses

MSE = "mean_squared_error"
SOFTMAX = "softmax_cross_entropy"
WITH_MEAN = [name for name in NAMES if not losses.LOSSES[name].per_pixel]
FUNCTIONS = [ml.loss, ml.loss_gradient, ml.loss_and_gradient]
OF_THE_DIVISOR = ("predictions", "labels", "loss_type", "reduction", "weights", "sample_weight",
                  "class_weight", "ignore_index", "axis")  # fmt: skip

each_loss = pytest.mark.parametrize("name", WITH_MEAN)


def calls(name: str, dtype: str, across: bool) -> list[Asked]:
    """Every layout, reduction and kind of weights, without a divisor of its own."""
    combinations = product([*LAYOUTS, LARGE[0]], WITH_DIVISOR, WEIGHT_KINDS)
    drawn_calls = [
        drawn(seed, name, dtype, where, reduction, across, kind)
        for seed, (where, reduction, kind) in enumerate(combinations)
    ]
    return [call.having(divisor=None) for call in drawn_calls]


def reduction_divisor(call: Asked) -> float:
    given = {key: call.arguments[key] for key in OF_THE_DIVISOR if key in call.arguments}
    result = ml.reduction_divisor(**given)
    assert type(result) is float
    return result


@each_loss
def test_reduction_divisor_is_that_of_the_reference(name: str, dtype: str) -> None:
    for call in calls(name, dtype, True):
        expected = call.call.reduction_divisor()
        assert reduction_divisor(call) == pytest.approx(expected, rel=1e-13), str(call)


@each_loss
def test_the_divisor_that_a_reduction_has_may_be_given(
    device: ml.Device, name: str, dtype: str, tally: Tally
) -> None:
    """Bit for bit where it is a count."""
    skip_unless_supported(device, name)
    for call in calls(name, dtype, True):
        results = call.having(divisor=reduction_divisor(call)).results(device)
        if call.arguments["reduction"] == "mean_by_weights":
            assert_as_the_reference(call, {key: results[key] for key in ("loss", *call.wrt)}, tally)
        else:
            assert_same_bits(results, call.results(device), call)


@each_loss
def test_a_divisor_stands_in_place_of_that_of_each_image(
    device: ml.Device, name: str, tally: Tally
) -> None:
    skip_unless_supported(device, name)
    for seed, call in enumerate(calls(name, "float32", False)):
        divisor = [3, -0.5, 1e20, np.float32(7), 0][seed % 5]
        given = call.having(divisor=divisor)
        in_reference = call.having(divisor=float(divisor))
        for key, actual in given.results(device).items():
            error = losses.assert_within(actual, *in_reference.expected(key), f"{key} of {given}")
            tally.add("float32", error, name)


@each_loss
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_shards_with_the_sum_of_their_divisors_are_the_whole(
    device: ml.Device, name: str, dtype: str
) -> None:
    """What data-parallel code does: one of the shards is empty."""
    skip_unless_supported(device, name, dtype)
    for seed, reduction in product(range(6), WITH_DIVISOR):
        whole = drawn(seed, name, dtype, ((7, 5, 3), 1), reduction, True, WEIGHT_KINDS[seed % 5])
        whole = whole.having(divisor=None, source_gradient=0.75)
        if "weights" in whole.arguments:
            v = np.broadcast_to(whole.arguments["weights"], (7, 5, 3))
            whole = whole.having(weights=v.copy())
        shards = [
            whole.having(
                **{
                    key: array[part]
                    for key, array in whole.arguments.items()
                    if isinstance(array, np.ndarray) and array.ndim and key != "class_weight"
                }
            )
            for part in (slice(0, 3), slice(3, 3), slice(3, 7))
        ]
        divisor = sum(reduction_divisor(shard) for shard in shards)
        assert divisor == pytest.approx(reduction_divisor(whole), rel=1e-13)
        parts = [shard.having(divisor=divisor).results(device) for shard in shards]
        expected = whole.results(device)
        assert parts[1]["loss"] == 0
        total = sum(part.pop("loss").astype(np.float64) for part in parts)
        bound = 2 * whole.expected("loss")[1]
        losses.assert_within(expected.pop("loss"), np.asarray(total), bound, str(whole))
        for key, value in expected.items():
            joined = np.concatenate([part[key] for part in parts]).astype(np.float64)
            losses.assert_within(value, joined, 2 * whole.expected(key)[1], f"{key} of {whole}")


@each_loss
def test_a_divisor_of_0_gives_0_whatever_the_values(device: ml.Device, name: str) -> None:
    skip_unless_supported(device, name)
    nan = np.full((2, 3), np.nan, np.float32)
    for reduction, across in product(WITH_DIVISOR, (True, False)):
        call = Asked({"predictions": nan, "labels": nan, "loss_type": name, "divisor": 0.0,
                      "reduction": reduction, "reduce_across_batch": across})  # fmt: skip
        for key, value in call.results(device).items():
            np.testing.assert_array_equal(value, np.zeros_like(value), err_msg=key)


@each_loss
def test_an_empty_shard_gives_0(device: ml.Device, name: str) -> None:
    for shape, reduction, divisor in product(((0, 3), (2, 0), (0,)), WITH_DIVISOR, (0, 4.0)):
        nothing = np.zeros(shape, np.float32)
        options: dict[str, Any] = {"loss_type": name, "reduction": reduction}
        assert ml.reduction_divisor(nothing, nothing, **options) == 0
        loss = ml.loss(nothing, nothing, **options, divisor=divisor, device=device)
        assert loss == 0
        assert loss.dtype == np.float32


def test_weights_of_both_signs_divide_by_what_is_left(device: ml.Device) -> None:
    y, t = np.array([[1.0], [3.0]], np.float32), np.zeros((2, 1), np.float32)
    for w, loss, slopes in (
        ([1, -2], 17.0, [-2, 12]),
        ([1, -1], 0.0, [0, 0]),
        ([2, 2], 5.0, [1, 3]),
    ):
        options: dict[str, Any] = {"reduction": "mean_by_weights", "device": device}
        options["sample_weight"] = np.array(w, np.float32)
        value, gradient = ml.loss_and_gradient(y, t, MSE, **options)
        assert value == loss
        assert gradient.ravel().tolist() == slopes


@pytest.mark.parametrize("name", INDEX_LOSSES)
def test_labels_are_counted_as_given_before_smoothing(device: ml.Device, name: str) -> None:
    skip_unless_supported(device, name)
    y = np.full((2, 4), 0.25, np.float32)
    t = np.array([[0.5, 0, 0, 0], [0, 2, 0, 0]], np.float32)
    v = np.array([[1, np.inf, np.nan, 1], [np.nan, 3, 1, 1]], np.float32)
    options: dict[str, Any] = {"loss_type": name, "reduction": "mean_by_weights"}
    assert ml.reduction_divisor(y, t, **options, weights=v) == 6.5
    assert ml.reduction_divisor(y, np.array([1, 3]), **options, class_weight=[1, 2, 4, 8]) == 10
    ignoring = {"ignore_index": 3, "class_weight": [1, 2, 4, 8]}
    assert ml.reduction_divisor(y, np.array([1, 3]), **options, **ignoring) == 2
    assert ml.reduction_divisor(y, np.array([3, 3]), **options, **ignoring) == 0
    nothing = ml.loss(y, np.array([3, 3]), **options, **ignoring, device=device)
    assert nothing == 0  # not 0 / 0
    if losses.LOSSES[name].smoothing_level is not None:
        smoothed = Asked({"predictions": y, "labels": t, **options, "label_smoothing": 0.5})
        results = smoothed.having(divisor=2.5).results(device)
        assert_same_bits(results, smoothed.results(device))


@pytest.mark.parametrize("name", INDEX_LOSSES)
def test_labels_that_the_divisor_depends_on_have_no_gradient_without_one(
    device: ml.Device, name: str, tally: Tally
) -> None:
    skip_unless_supported(device, name)
    call = drawn(0, name, "float32", ((3, 5, 2), 1), "mean_by_weights", True, "all")
    call = call.without("ignore_index").having(
        labels=np.full((3, 5, 2), 0.25, np.float32), divisor=None
    )
    for function in (ml.loss_gradient, ml.loss_and_gradient):
        with pytest.raises(ValueError, match=r"divisor"):
            function(**call.arguments, wrt="labels", device=device)
    with_one = call.having(divisor=3.0)
    assert_as_the_reference(with_one, with_one.results(device), tally)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_reductions_that_do_not_divide_have_no_divisor(
    device: ml.Device, function: Any, reduction: str
) -> None:
    y = np.full((2, 3), 0.5, np.float32)
    with pytest.raises(ValueError, match=rf"^divisor must .*{reduction}"):
        function(y, y, MSE, reduction=reduction, divisor=2.0, device=device)
    with pytest.raises(ValueError, match=rf"^reduction must .*{reduction}"):
        ml.reduction_divisor(y, y, MSE, reduction=reduction)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_divisor_is_a_finite_number(device: ml.Device, function: Any) -> None:
    y = np.full((2, 3), 0.5, np.float32)
    for wrong in (np.nan, np.inf, -np.inf, 10**400):
        with pytest.raises(ValueError, match=r"^divisor must"):
            function(y, y, MSE, divisor=wrong, device=device)
    for wrong in ("2", [2.0], 1j, np.ones(2)):
        with pytest.raises(TypeError, match=r"^divisor must"):
            function(y, y, MSE, divisor=wrong, device=device)


def test_descriptors_and_kernels_do_not_know_mean_by_weights() -> None:
    with pytest.raises(ValueError, match=r"^reduction\w* must .*mean_by_weights"):
        ml.MPSCNNLossDescriptor(MSE, "mean_by_weights")
    descriptor = ml.MPSCNNLossDescriptor(MSE, "mean")
    with pytest.raises(ValueError, match=r"^reduction\w* must .*mean_by_weights"):
        descriptor.reduction_type = "mean_by_weights"
    assert "MEAN_BY_WEIGHTS" not in ml.MPSCNNReductionType.__members__


def test_reduction_divisor_looks_at_its_arguments_as_the_others_do() -> None:
    y = np.full((2, 3), 0.5, np.float32)
    for changes, error, pattern in (
        ({"labels": np.ones((2, 4))}, ValueError, r"^labels must"),
        ({"labels": np.array([0, 3]), "loss_type": SOFTMAX}, ValueError, r"labels\[1\] is 3"),
        ({"labels": np.array([0, 1])}, ValueError, r"^labels"),
        ({"weights": np.ones((3, 3))}, ValueError, r"^weights must"),
        ({"axis": 2}, ValueError, r"^axis must"),
        ({"ignore_index": 1}, ValueError, r"^ignore_index"),
        ({"loss_type": "no_such_loss"}, ValueError, r"^loss_type must"),
        ({"reduction": "average"}, ValueError, r"^reduction must"),
        ({"predictions": None}, TypeError, r"^predictions"),
        ({"divisor": 2.0}, TypeError, r"divisor"),
    ):
        arguments: dict[str, Any] = {"predictions": y, "labels": y, "loss_type": MSE}
        with pytest.raises(error, match=pattern):
            ml.reduction_divisor(**arguments | changes)


def test_reduction_divisor_of_large_arrays_with_few_weights(dtype: str) -> None:
    """Broadcast weights are counted without being spread."""
    y = np.broadcast_to(np.zeros(1, dtype), (1000, 10, 1000))
    w = np.ones(1000)
    w[::4] = 0
    options: dict[str, Any] = {"loss_type": MSE, "sample_weight": w}
    for reduction, expected in zip(WITH_DIVISOR, (10**7, 75 * 10**5, 75 * 10**5), strict=True):
        assert ml.reduction_divisor(y, y, reduction=reduction, **options) == expected
