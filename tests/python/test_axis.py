"""Channels on any axis, and operands that lie in memory in any way."""

from __future__ import annotations

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
    STRIDED,
    Asked,
    assert_as_the_reference,
    assert_same_bits,
    cells,
    drawn,
    laid_out,
    reductions_of,
    skip_unless_supported,
)
from conftest import Tally
from reference import losses

MSE = "mean_squared_error"


@pytest.fixture
def name(device: ml.Device, loss_type: ml.MPSCNNLossType) -> str:
    skip_unless_supported(device, loss_type.name.lower())
    return loss_type.name.lower()


def test_every_axis_reduction_divisor_and_kind_of_weights(
    device: ml.Device, name: str, dtype: str, tally: Tally
) -> None:
    """Operands lie in C order, or each in a way of its own."""
    ways = [*STRIDED.values(), *COPIED.values()]
    for seed, cell in enumerate(cells(name, dtype)):
        results = cell.results(device)
        assert_as_the_reference(cell, results, tally)
        assert_same_bits(cell.fused(device), {k: results[k] for k in ("loss", "predictions")}, cell)
        rng = np.random.default_rng(seed)
        mixed = laid_out(cell, lambda _, rng=rng: ways[rng.integers(len(ways))])
        assert_same_bits(mixed.results(device), results, cell)


def large_calls(name: str, dtype: str) -> list[Asked]:
    """A plane of pixels, rows and batches that fill no vector and no tile evenly."""
    combinations = product(LARGE, reductions_of(name)[-2:], (True, False))
    return [
        drawn(seed, name, dtype, where, reduction, across)
        for seed, (where, reduction, across) in enumerate(combinations)
    ]


def test_large_arrays_with_channels_first(
    device: ml.Device, name: str, dtype: str, tally: Tally
) -> None:
    for call in large_calls(name, dtype):
        assert_as_the_reference(call, call.results(device) | call.fused(device), tally)


@pytest.mark.parametrize("way", [*STRIDED, *COPIED])
def test_any_strides_give_the_bits_of_a_contiguous_copy(
    device: ml.Device, name: str, dtype: str, way: str
) -> None:
    lay = {**STRIDED, **COPIED}[way]
    combinations = product([*LAYOUTS[1:], LARGE[0]], reductions_of(name)[::2])
    for seed, (where, reduction) in enumerate(combinations):
        call = drawn(seed, name, dtype, where, reduction, bool(seed % 2))
        laid = laid_out(call, lambda _: lay)
        before = {k: np.array(v) for k, v in laid.arguments.items() if isinstance(v, np.ndarray)}
        expected = call.results(device)
        assert_same_bits(laid.results(device), expected, f"{way}: {call}")
        only_predictions = laid_out(call, lambda key: lay if key == "predictions" else np.array)
        assert_same_bits(only_predictions.fused(device), {"loss": expected["loss"]}, call)
        for key, value in before.items():
            np.testing.assert_array_equal(laid.arguments[key], value)


def with_channels_last(call: Asked) -> Asked:
    """The same call on arrays whose channel axis was moved to the end."""
    y, axis = call.arguments["predictions"], call.arguments["axis"]

    def last(array: Any) -> Any:
        return np.ascontiguousarray(np.moveaxis(array, axis, -1))

    moved: dict[str, Any] = {"axis": -1, "predictions": last(y)}
    for key in ("labels", "source_gradient", "weights"):
        array = call.arguments.get(key)
        if np.shape(array) == y.shape or (key == "weights" and array is not None):
            moved[key] = last(array)
    return call.having(**moved)


def test_an_axis_equals_moving_the_channels_to_the_end(
    device: ml.Device, name: str, dtype: str
) -> None:
    """Bit for bit in all that is not a sum over an image."""
    combinations = product([*LAYOUTS[1:], *LARGE], reductions_of(name)[::2])
    for seed, (where, reduction) in enumerate(combinations):
        call = drawn(seed, name, dtype, where, reduction, bool(seed % 2))
        results, moved = call.results(device), with_channels_last(call).results(device)
        loss, moved_loss = results.pop("loss"), moved.pop("loss")
        expected = {key: np.moveaxis(array, -1, where[1]) for key, array in moved.items()}
        if reduction == "none":
            results["loss"], expected["loss"] = loss, np.moveaxis(moved_loss, -1, where[1])
        else:
            bound = 2 * call.expected("loss")[1]
            losses.assert_within(loss, moved_loss.astype(np.float64), bound, str(call))
        assert_same_bits(results, expected, call)


@pytest.mark.parametrize(("shape", "axis"), LAYOUTS)
def test_negative_axes_count_from_the_end(
    device: ml.Device, shape: tuple[int, ...], axis: int
) -> None:
    call = drawn(0, MSE, "float32", (shape, axis), "none", True)
    other = axis - len(shape) if axis >= 0 else axis + len(shape)
    assert_same_bits(call.having(axis=other).results(device), call.results(device))


def test_the_last_axis_is_the_default(device: ml.Device) -> None:
    call = drawn(0, MSE, "float32", ((3, 2, 5), -1), "mean", True)
    assert_same_bits(call.without("axis").results(device), call.results(device))


def test_the_first_of_the_other_axes_is_the_batch(device: ml.Device) -> None:
    """Losses per image are one for each of its extent, wherever the channels are."""
    for shape, axis in LAYOUTS:
        for reduction in ("sum", "mean", "mean_by_weights"):
            call = drawn(1, MSE, "float32", (shape, axis), reduction, False, "none")
            assert call.results(device)["loss"].shape == losses.Layout(shape, axis).images[:1]


@pytest.mark.parametrize("name", INDEX_LOSSES)
@pytest.mark.parametrize(("shape", "axis"), LAYOUTS)
def test_class_indices_have_the_shape_without_the_axis(
    device: ml.Device, name: str, shape: tuple[int, ...], axis: int
) -> None:
    """Each is the one-hot labels along that axis, and the number of classes is its extent."""
    skip_unless_supported(device, name)
    layout = losses.Layout(shape, axis)
    call = drawn(2, name, "float32", (shape, axis), "mean", True, "none")
    indices = np.random.default_rng(0).integers(0, 5, layout.pixels)
    one_hot = layout.from_images(layout.one_hot(indices)).astype(np.float32)
    call = call.having(number_of_classes=None, ignore_index=None)
    results = call.having(labels=indices).results(device)
    dense = call.having(labels=one_hot)
    for key, value in results.items():
        expected, bound = dense.expected(key)
        losses.assert_within(value, expected, bound, key)
    with pytest.raises(ValueError, match=r"^labels must"):
        ml.loss(**call.having(labels=indices[..., None]).without("source_gradient").arguments)


def test_a_wrong_index_is_named_by_its_place_in_the_labels(device: ml.Device) -> None:
    y, t = np.full((2, 5, 3), 0.2, np.float32), np.zeros((2, 3), np.int64)
    t[1, 2] = 5
    with pytest.raises(ValueError, match=r"labels\[1, 2\] is 5\b.*\[0, 5\)"):
        ml.loss(y, t, "softmax_cross_entropy", axis=1, device=device)


@pytest.mark.parametrize("function", [ml.loss, ml.loss_gradient, ml.loss_and_gradient])
def test_weights_broadcast_as_the_arrays_lie(device: ml.Device, function: Any) -> None:
    y = np.ones((2, 5, 3), np.float32)
    arguments: dict[str, Any] = {"axis": 1, "device": device}
    for shape in ((5, 1), (1, 3), (3,), (2, 1, 1), (2, 5, 3), ()):
        function(y, y, MSE, weights=np.ones(shape, np.float32), **arguments)
    for shape in ((5,), (2, 3, 5), (2, 3), (2,)):
        with pytest.raises(ValueError, match=r"^weights must"):
            function(y, y, MSE, weights=np.ones(shape, np.float32), **arguments)


def test_cosine_distance_has_weights_of_one_channel_on_that_axis(device: ml.Device) -> None:
    skip_unless_supported(device, "cosine_distance")
    y = np.ones((2, 5, 3), np.float32)
    arguments: dict[str, Any] = {"reduction": "sum", "axis": 1, "device": device}
    ml.loss(y, y, "cosine_distance", weights=np.ones((2, 1, 3), np.float32), **arguments)
    with pytest.raises(ValueError, match=r"^weights must"):
        ml.loss(y, y, "cosine_distance", weights=np.ones((2, 5, 1), np.float32), **arguments)


@pytest.mark.parametrize("shape", [(0, 5, 2), (2, 0, 3), (2, 5, 0), (0, 0, 0)], ids=str)
def test_empty_extents_on_any_axis(device: ml.Device, shape: tuple[int, ...]) -> None:
    nothing = np.zeros(shape, np.float32)
    values = {"sum": 0, "mean": np.nan, "sum_by_non_zero_weights": 0, "mean_by_weights": 0}
    for axis, (reduction, value), across in product(range(3), values.items(), (True, False)):
        options: dict[str, Any] = {"reduction": reduction, "axis": axis, "device": device}
        options["reduce_across_batch"] = across
        loss, gradient = ml.loss_and_gradient(nothing, nothing, "softmax_cross_entropy", **options)
        n = losses.Layout(shape, axis).images[0]
        expected = np.full(() if across else (n,), value, np.float32)
        np.testing.assert_array_equal(np.asarray(loss), expected, strict=True)
        np.testing.assert_array_equal(gradient, nothing, strict=True)


@pytest.mark.parametrize(("shape", "axis"), [((3, 5), 2), ((3, 5), -3), ((5,), 1), ((3, 5), 2**70)])
def test_an_axis_out_of_range_is_a_value_error(
    device: ml.Device, shape: tuple[int, ...], axis: int
) -> None:
    y = np.ones(shape, np.float32)
    for function in (ml.loss, ml.loss_gradient, ml.loss_and_gradient):
        with pytest.raises(ValueError, match=rf"^axis must .*{axis}"):
            function(y, y, MSE, axis=axis, device=device)


def test_threads_change_no_bit_of_channels_first(name: str, dtype: str, device: ml.Device) -> None:
    if device.kind != "cpu":
        pytest.skip("threads are the CPU engine's")
    calls = [drawn(3, name, dtype, where, "sum", True) for where in LARGE]
    before = ml.get_num_threads()
    try:
        ml.set_num_threads(1)
        expected = [call.results(device) for call in calls]
        for threads in (2, 7):
            ml.set_num_threads(threads)
            for call, results in zip(calls, expected, strict=True):
                assert_same_bits(call.results(device), results, call)
    finally:
        ml.set_num_threads(before)
