"""Gradients written over the predictions: `out` is exactly their memory."""

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
    STRIDED,
    Asked,
    assert_same_bits,
    drawn,
    held_by,
    reductions_of,
    skip_unless_supported,
)

MSE = "mean_squared_error"
SOFTMAX = "softmax_cross_entropy"


@pytest.fixture
def name(device: ml.Device, loss_type: ml.MPSCNNLossType) -> str:
    skip_unless_supported(device, loss_type.name.lower())
    return loss_type.name.lower()


def view(array: np.ndarray) -> np.ndarray:
    """Another array of exactly the same memory."""
    return array.view() if array.ndim else array.reshape(())


def assert_in_place(device: ml.Device, call: Asked, lay: Any, what: object) -> None:
    """Every function, with the predictions themselves and with another view of them as `out`."""
    expected = call.results(device)
    options = {"device": device}

    def over(as_out: Any) -> tuple[Asked, np.ndarray]:
        y = lay(call.arguments["predictions"].copy())
        return call.having(predictions=y), as_out(y)

    for as_out in (lambda y: y, view):
        for wrt in call.wrt:
            given, out = over(as_out)
            assert ml.loss_gradient(**given.arguments, wrt=wrt, out=out, **options) is out
            assert_same_bits({"out": out}, {"out": expected[wrt]}, f"{wrt}, {what}, {call}")
            given, out = over(as_out)
            loss, gradient = ml.loss_and_gradient(**given.arguments, wrt=wrt, out=out, **options)
            assert gradient is out
            results = {"loss": np.asarray(loss), "out": out}
            wanted = {"loss": expected["loss"], "out": expected[wrt]}
            assert_same_bits(results, wanted, f"{wrt}, {what}, {call}")
        if device.kind == "cpu":
            given, out = over(as_out)
            results = ml.loss_gradient_and_hessian(**given.arguments, out=out, **options)
            wanted = {"out": expected["predictions"], "hessian": expected["hessian"]}
            assert_same_bits({"out": out, "hessian": results[1]}, wanted, f"{what}, {call}")


@pytest.mark.parametrize("where", LAYOUTS, ids=str)
def test_in_place_equals_out_of_place(
    device: ml.Device, name: str, dtype: str, where: tuple[tuple[int, ...], int]
) -> None:
    for seed, (reduction, across) in enumerate(product(reductions_of(name), (True, False))):
        assert_in_place(device, drawn(seed, name, dtype, where, reduction, across), np.array, "")


@pytest.mark.parametrize("way", STRIDED)
def test_in_place_where_strided_predictions_lie(
    device: ml.Device, name: str, dtype: str, way: str
) -> None:
    for seed, where in enumerate(LAYOUTS[1:]):
        call = drawn(seed, name, dtype, where, reductions_of(name)[-1], True)
        assert_in_place(device, call, STRIDED[way], way)


def test_in_place_in_large_arrays(device: ml.Device, name: str, dtype: str) -> None:
    sizes = [*LARGE, ((3, 70, 130), -1), ((7, 1025), 1), ((60, 3000), 1), ((20001, 5), 0)]
    sizes += [((2, 300, 16, 16), 1)]
    for seed, where in enumerate(held_by(device, sizes)):
        call = drawn(seed, name, dtype, where, reductions_of(name)[-1], True)
        assert_in_place(device, call, np.array, "")
        # With a weight beyond float32's range losses and gradients are computed one by one.
        assert_in_place(device, call.having(weight=1e-30), np.array, "")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("classes", [1, 2, 3, 5, 8, 16, 17, 40, 64, 300, 1025])
def test_rows_that_are_read_a_second_time_are_read_before_they_are_written(
    device: ml.Device, classes: int, dtype: str
) -> None:
    """Far-away logits, infinities and NaN in some rows of a softmax, with weights of every size."""
    skip_unless_supported(device, SOFTMAX, dtype)
    rng = np.random.default_rng(classes)
    for deviation, smoothing, axis in product((1, 60, 300), (0.0, 0.1), (0, 1)):
        y = deviation * rng.normal(size=(97, classes))
        y[rng.random(y.shape) < 0.02] = rng.choice([np.inf, -np.inf, np.nan, 1e30])
        y = (y if axis else y.T.copy()).astype(dtype)
        dense = rng.random(y.shape).astype(dtype)
        for labels in (rng.integers(0, classes, 97), dense):
            call = Asked({"predictions": y, "labels": labels, "loss_type": SOFTMAX, "axis": axis,
                          "label_smoothing": smoothing, "reduction": "sum",
                          "weight": 1e12})  # fmt: skip
            expected = call.results(device)
            results = {}
            for key, function in (("gradient", ml.loss_gradient), ("fused", ml.loss_and_gradient)):
                out = y.copy()
                function(**call.having(predictions=out).arguments, out=out, device=device)
                results[key] = out
            assert_same_numbers(results, expected["predictions"])
            if device.kind == "cpu":
                out = y.copy()
                given = call.having(predictions=out).arguments
                _, second = ml.loss_gradient_and_hessian(**given, out=out)
                assert_same_numbers({"gradient": out}, expected["predictions"])
                assert_same_numbers({"hessian": second}, expected["hessian"])


def assert_same_numbers(results: dict[str, np.ndarray], expected: np.ndarray) -> None:
    """Bit for bit, but for the payloads of NaN."""
    for key, array in results.items():
        nan = np.isnan(expected)
        np.testing.assert_array_equal(np.isnan(array), nan, err_msg=key)
        assert array[~nan].tobytes() == expected[~nan].tobytes(), key


@pytest.mark.parametrize("name", INDEX_LOSSES)
def test_class_indices_in_place(device: ml.Device, name: str) -> None:
    skip_unless_supported(device, name)
    rng = np.random.default_rng(9)
    for (shape, axis), ignore in product([((40, 7), 1), ((3, 7, 50), 1), ((7, 300), 0)], (None, 2)):
        y = rng.uniform(0.1, 0.9, shape).astype(np.float32)
        pixels = tuple(n for i, n in enumerate(shape) if i != axis)
        call = Asked({"predictions": y, "labels": rng.integers(0, 7, pixels), "loss_type": name,
                      "axis": axis, "ignore_index": ignore, "reduction": "mean"})  # fmt: skip
        assert_in_place(device, call, np.array, "class indices")


def test_threads_change_no_bit_in_place(device: ml.Device) -> None:
    if device.kind != "cpu":
        pytest.skip("threads are the CPU engine's")
    rng = np.random.default_rng(10)
    y, t = rng.normal(size=(2, 257, 1001)).astype(np.float32)
    before = ml.get_num_threads()
    try:
        for loss_type in (MSE, SOFTMAX):
            expected = ml.loss_gradient(y, t, loss_type)
            for threads in (1, 2, 7):
                ml.set_num_threads(threads)
                out = y.copy()
                ml.loss_gradient(out, t, loss_type, out=out)
                assert out.tobytes() == expected.tobytes()
    finally:
        ml.set_num_threads(before)


def test_other_overlaps_with_the_predictions_are_refused(device: ml.Device) -> None:
    memory = np.arange(12, dtype=np.float32)
    y, t = memory[:9].reshape(3, 3), np.zeros((3, 3), np.float32)
    before = memory.tobytes()
    overlaps = {
        "shifted": memory[1:10].reshape(3, 3),
        "shifted by a row": memory[3:12].reshape(3, 3),
        "transposed": y.T,
        "backwards": y[::-1],
        "channels backwards": y[:, ::-1],
    }
    for what, out in overlaps.items():
        for function in (ml.loss_gradient, ml.loss_and_gradient):
            with pytest.raises(ValueError, match=r"^out must"):
                function(y, t, MSE, out=out, device=device)
        assert memory.tobytes() == before, what


def test_the_same_memory_of_another_dtype_is_refused(device: ml.Device) -> None:
    y, t = np.ones((3, 4), np.float32), np.zeros((3, 4), np.float32)
    for out in (y.view(np.int32), y.view(">f4"), y.astype(np.float32).view(np.uint8)):
        with pytest.raises((TypeError, ValueError), match=r"^out must"):
            ml.loss_gradient(y, t, MSE, out=out, device=device)
    assert (y == 1).all()


def test_a_wide_destination_over_narrow_predictions_is_refused(device: ml.Device) -> None:
    memory = np.ones(24, np.float16)
    y, out = memory[:12].reshape(3, 4), memory.view(np.float32).reshape(3, 4)
    with pytest.raises(ValueError, match=r"^out must"):
        ml.loss_gradient(y, y.copy(), MSE, out=out, device=device)
    assert (memory == 1).all()


@pytest.mark.parametrize("other", ["labels", "weights", "sample_weight", "source_gradient"])
@pytest.mark.parametrize("function", [ml.loss_gradient, ml.loss_and_gradient])
def test_an_operand_that_shares_the_predictions_memory_forbids_it(
    device: ml.Device, function: Any, other: str
) -> None:
    """In place, no other operand may lie there: it would be read after it was written."""
    y = np.full((3, 3), 0.5, np.float32)
    shared = y[0] if other == "sample_weight" else y
    arguments: dict[str, Any] = {"predictions": y, "labels": np.ones((3, 3), np.float32)}
    arguments |= {"loss_type": MSE, "reduction": "none", other: shared, "device": device}
    with pytest.raises(ValueError, match=r"^out must"):
        function(**arguments, out=y)
    assert (y == 0.5).all()
    function(**arguments)  # without a destination nothing is refused


def test_labels_are_no_predictions(device: ml.Device) -> None:
    """`out` over the labels is refused, with respect to either."""
    y, t = np.full((3, 3), 0.5, np.float32), np.ones((3, 3), np.float32)
    for wrt in ("predictions", "labels"):
        with pytest.raises(ValueError, match=r"^out must"):
            ml.loss_gradient(y, t, MSE, wrt=wrt, out=t, device=device)
    assert (t == 1).all()


def test_losses_are_not_written_in_place(device: ml.Device) -> None:
    """`loss_out` may never be the predictions' memory, whatever `out` is."""
    y, t = np.full((3, 3), 0.5, np.float32), np.ones((3, 3), np.float32)
    options: dict[str, Any] = {"reduction": "none", "device": device}
    with pytest.raises(ValueError, match=r"^loss_out must"):
        ml.loss_and_gradient(y, t, MSE, loss_out=y, **options)
    with pytest.raises(ValueError, match=r"^(loss_)?out must"):
        ml.loss_and_gradient(y, t, MSE, out=y, loss_out=y, **options)
    assert (y == 0.5).all()


def test_what_a_refused_call_would_overwrite_stays(device: ml.Device) -> None:
    y, t = np.full((2, 3), 0.5, np.float32), np.array([0, 3])
    with pytest.raises(ValueError, match=r"labels\[1\] is 3"):
        ml.loss_gradient(y, t, SOFTMAX, out=y, device=device)
    assert (y == 0.5).all()


def test_predictions_that_are_copied_are_not_in_place(device: ml.Device) -> None:
    """Unaligned and byte-swapped memory is refused as `out`, and so it is as predictions too."""
    memory = np.zeros(37, np.uint8)
    unaligned = memory[1:].view(np.float32).reshape(3, 3)
    for y in (unaligned, np.ones((3, 3), ">f4")):
        before = y.tobytes()
        with pytest.raises((TypeError, ValueError), match=r"^out must"):
            ml.loss_gradient(y, np.zeros((3, 3), np.float32), MSE, out=y, device=device)
        assert y.tobytes() == before
