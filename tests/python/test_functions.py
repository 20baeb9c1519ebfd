"""The one-call functions: shapes, dtypes, weights, class indices, destinations, threads."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import mpsnn_loss as ml
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

REDUCTIONS = ["none", "sum", "mean", "sum_by_non_zero_weights"]
RANKS = [(6,), (4, 3), (3, 2, 5), (2, 3, 4, 2), (3, 2, 2, 3, 2)]
SOFTMAX = "softmax_cross_entropy"
INDEX_LOSSES = [SOFTMAX, "categorical_cross_entropy"]


def data(shape: tuple[int, ...], seed: int = 0, dtype: Any = np.float64) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.1, 0.9, shape).astype(dtype)


def near(actual: Any, expected: Any) -> bool:
    return bool(np.allclose(actual, expected, rtol=1e-13, atol=1e-15, equal_nan=True))


def same_bits(results: list[Any]) -> bool:
    return len({tuple(np.asarray(part).tobytes() for part in result) for result in results}) == 1


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", RANKS, ids=str)
def test_the_first_axis_is_the_batch_and_the_last_the_channels(
    shape: tuple[int, ...], reduction: str
) -> None:
    y, t, v = data(shape), data(shape, 1), data(shape, 2) > 0.4
    images = (1, -1) if len(shape) == 1 else (shape[0], -1)
    terms = (v * (y - t) ** 2).reshape(images)
    counts = {"sum": np.ones(len(terms)), "mean": np.full(len(terms), terms.shape[1]),
              "sum_by_non_zero_weights": v.reshape(images).sum(1)}.get(reduction)  # fmt: skip
    for across in (True, False):
        options: dict[str, Any] = {
            "reduction": reduction,
            "weights": v,
            "reduce_across_batch": across,
        }
        loss, slope = ml.loss_and_gradient(y, t, "mean_squared_error", **options)
        if reduction == "none":
            expected, divisor = terms.reshape(shape), np.ones(len(terms))
        elif across:
            divisor = np.full(len(terms), 1 if reduction == "sum" else counts.sum())
            expected = terms.sum() / divisor[0]
        else:
            divisor = counts.clip(1)  # without any weight the loss is 0, not 0 / 0
            expected = terms.sum(1) / divisor
        assert np.shape(loss) == np.shape(expected)
        assert near(loss, expected)
        expected_slope = (2 * v * (y - t)).reshape(images) / divisor[:, None]
        assert slope.shape == shape
        assert near(slope, expected_slope.reshape(shape))
        assert same_bits([(loss,), (ml.loss(y, t, "mean_squared_error", **options),)])
        assert same_bits([(slope,), (ml.loss_gradient(y, t, "mean_squared_error", **options),)])


@pytest.mark.parametrize("loss", ["mean_squared_error", SOFTMAX])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@given(axes=st.lists(st.booleans(), min_size=5, max_size=5), drop=st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_weights_broadcast_by_numpys_rules(
    loss: str, reduction: str, axes: list[bool], drop: int
) -> None:
    shape = (3, 2, 4, 2, 3)
    y, t = data(shape), data(shape, 1)
    v = data(tuple(n if full else 1 for n, full in zip(shape, axes, strict=True)), 2) - 0.3
    v = np.where(v < 0, 0.0, v)
    while drop and v.ndim and v.shape[0] == 1:  # leading axes may be left out
        v, drop = v[0], drop - 1
    dense = np.broadcast_to(v, shape)
    results = [ml.loss_and_gradient(y, t, loss, reduction=reduction, weights=w) for w in (v, dense)]
    assert near(results[0][0], results[1][0])
    assert near(results[0][1], results[1][1])


@pytest.mark.parametrize(("dtype", "gradient", "loss"), [
    ("f2", "f2", "f4"), ("f4", "f4", "f4"), ("f8", "f8", "f8"), ("i1", "f8", "f8"),
    ("u8", "f8", "f8"), ("?", "f8", "f8"), (">f4", "f4", "f4"), (">i2", "f8", "f8")])  # fmt: skip
def test_dtypes_follow_the_predictions_and_scalars_are_numpys(
    dtype: str, gradient: str, loss: str
) -> None:
    y = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    for labels in (np.zeros((2, 3), np.int32), np.zeros((2, 3), bool), np.zeros((2, 3), ">f8")):
        total, slope = ml.loss_and_gradient(y, labels, "mean_squared_error", weights=labels == 0)
        assert isinstance(total, np.floating)
        assert (total.dtype, slope.dtype) == (np.dtype(loss), np.dtype(gradient))
        assert slope.flags.c_contiguous
        assert total == np.dtype(loss).type(4 / 6)
    assert ml.loss(y[0], y[0], "huber", reduce_across_batch=False).shape == (1,)
    for reduction, shape in (("none", (2, 3)), ("sum", (2,))):
        options: dict[str, Any] = {"reduction": reduction, "reduce_across_batch": False}
        result = ml.loss(y, y, "huber", **options)
        assert isinstance(result, np.ndarray)
        assert (result.shape, result.dtype) == (shape, np.dtype(loss))


def test_odd_inputs_give_the_bits_of_plain_ones_and_stay_as_they_are() -> None:
    y, t, v = data((4, 3)), data((4, 3), 1), data((4, 3), 2)
    expected = ml.loss_and_gradient(y, t, "log", weights=v)
    room = np.full((8, 7), np.nan)
    room[::2, 5:2:-1] = y
    frozen = y.copy()
    frozen.flags.writeable = False
    unaligned = np.frombuffer(b"x" + y.tobytes(), np.uint8)[1:].view(np.float64).reshape(y.shape)
    odd = {
        "strided": room[::2, 5:2:-1],
        "swapped": y.astype(">f8"),
        "Fortran": np.asfortranarray(y),
        "read-only": frozen,
        "unaligned": unaligned,
    }
    for name, form in odd.items():
        before = form.tobytes()
        assert same_bits([expected, ml.loss_and_gradient(form, t, "log", weights=v)]), name
        assert same_bits([expected, ml.loss_and_gradient(y, t, "log", weights=v.T.copy().T)])
        assert form.tobytes() == before
    assert same_bits([ml.loss_and_gradient(t, form, "log") for form in odd.values()])


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", ">i2", "i4", ">u4", "i8", "u8", ">i8"])
@pytest.mark.parametrize("loss", INDEX_LOSSES)
@pytest.mark.parametrize("shape", [(3,), (5, 4), (2, 3, 4)], ids=str)
def test_class_indices_equal_one_hot_labels(shape: tuple[int, ...], loss: str, dtype: str) -> None:
    y, v = data(shape), data((*shape[:-1], 1), 1)
    indices = np.asarray(np.random.default_rng(2).integers(0, shape[-1], shape[:-1]), dtype)
    one_hot = np.eye(shape[-1])[indices.astype(int)]
    for reduction in REDUCTIONS:
        for across in (True, False):
            options: dict[str, Any] = {"reduction": reduction, "reduce_across_batch": across}
            options |= {"weights": v, "label_smoothing": 0.2 if loss == SOFTMAX else 0.0}
            results = [ml.loss_and_gradient(y, t, loss, **options) for t in (indices, one_hot)]
            assert np.shape(results[0][0]) == np.shape(results[1][0])
            assert near(results[0][0], results[1][0])
            assert near(results[0][1], results[1][1])


@pytest.mark.parametrize("ignored", [-100, 1])  # outside the classes, and one of them
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("loss", INDEX_LOSSES)
def test_ignored_pixels_have_weight_zero(loss: str, reduction: str, ignored: int) -> None:
    y = data((3, 4, 5))
    indices = np.array([[0, 1, 2, 3], [4, 1, 0, 1], [1, 1, 1, 1]])
    kept = indices != 1
    one_hot = np.eye(5)[indices]
    y[~kept] = np.nan  # whatever stands there
    labels = np.where(kept, indices, ignored)
    for across in (True, False):
        options: dict[str, Any] = {"reduction": reduction, "reduce_across_batch": across}
        for v in (1.0, data((3, 1, 1), 1)):
            loss_value, slope = ml.loss_and_gradient(
                y, labels, loss, ignore_index=ignored, weights=v, **options
            )
            expected = ml.loss_and_gradient(
                y, one_hot, loss, weights=v * kept[..., None], **options
            )
            assert near(loss_value, expected[0])
            assert near(slope, expected[1])
            assert not slope[~kept].any()
            assert np.isfinite(loss_value).all()


@pytest.mark.parametrize("wrt", ["predictions", "labels"])
def test_source_gradient_multiplies_the_gradient_and_not_the_loss(wrt: str) -> None:
    y, t = data((4, 2, 3)), data((4, 2, 3), 1)
    per_image, per_element = data((4,), 2), data((4, 2, 3), 3)
    for options, factors in (
        ({}, [3, 2.5, np.float32(0.5), np.array(2.0)]),
        ({"reduce_across_batch": False}, [2, np.array(2.0), per_image]),
        ({"reduction": "none"}, [2, np.array(2.0), per_element]),
    ):
        loss, unit = ml.loss_and_gradient(y, t, "sigmoid_cross_entropy", wrt=wrt, **options)
        for g in factors:
            scale = g[:, None, None] if np.shape(g) == (4,) else g
            scaled = ml.loss_and_gradient(
                y, t, "sigmoid_cross_entropy", source_gradient=g, wrt=wrt, **options
            )
            assert near(scaled[1], scale * unit)
            assert same_bits([(loss,), (scaled[0],)])


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0), (2, 0, 3), (0, 0, 2, 1)], ids=str)
@pytest.mark.parametrize("loss", ["huber", SOFTMAX])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_empty_extents_have_the_values_of_an_empty_sum(
    shape: tuple[int, ...], loss: str, dtype: Any
) -> None:
    y = np.zeros(shape, dtype)
    images = shape[0] if len(shape) > 1 else 1
    nothing = {"sum": 0.0, "sum_by_non_zero_weights": 0.0, "mean": np.nan}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for reduction, value in nothing.items():
            for across, expected in ((True, np.array(value)), (False, np.full(images, value))):
                result, slope = ml.loss_and_gradient(
                    y, y, loss, reduction=reduction, reduce_across_batch=across
                )
                assert np.array_equal(result, expected, equal_nan=True)
                assert (slope.shape, slope.dtype) == (shape, dtype)
        assert ml.loss(y, y, loss, reduction="none").shape == shape


def test_destinations_are_returned_and_hold_the_result() -> None:
    y, t = data((4, 3), dtype=np.float32), data((4, 3), 1, np.float32)
    for options, shape in (
        ({"reduction": "none"}, (4, 3)),
        ({"reduce_across_batch": False}, (4,)),
        ({}, ()),
    ):
        expected = ml.loss_and_gradient(y, t, "huber", **options)
        out, loss_out = np.full((4, 3), np.nan, np.float32), np.full(shape, np.nan, np.float32)
        loss, slope = ml.loss_and_gradient(y, t, "huber", out=out, loss_out=loss_out, **options)
        assert slope is out
        assert loss is loss_out
        alone = np.full(shape, np.nan, np.float32)
        assert ml.loss(y, t, "huber", out=alone, **options) is alone
        assert same_bits([expected, (loss_out, out), (alone, out)])
        out[:] = np.nan
        assert ml.loss_gradient(y, t, "huber", out=out, **options) is out
        assert same_bits([expected, (alone, out)])


def test_the_cpu_engine_is_taken_for_small_and_for_float64_calls() -> None:
    y, t = data((40, 30)), data((40, 30), 1)
    results = [ml.loss_and_gradient(y, t, "log", device=d) for d in (None, ml.cpu_device())]
    assert same_bits(results)


@pytest.fixture
def keep_num_threads() -> Iterator[None]:
    before = ml.get_num_threads()
    yield
    ml.set_num_threads(before)


@pytest.mark.parametrize("loss", ["kullback_leibler_divergence", SOFTMAX])
def test_results_have_the_same_bits_for_every_number_of_threads(
    loss: str, keep_num_threads: None
) -> None:
    y, t = data((517, 401), dtype=np.float32), data((517, 401), 1, np.float32)
    results = []
    for count in (1, 2, 7):
        ml.set_num_threads(count)
        results.append(ml.loss_and_gradient(y, t, loss, device=ml.cpu_device()))
    assert same_bits(results)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("classes", [1, 2, 3, 4, 5, 8, 9, 16, 17, 100, 300])
def test_a_row_of_softmax_has_the_same_bits_alone_and_in_a_batch(classes: int, dtype: str) -> None:
    rng = np.random.default_rng(classes)
    labels = data((70, classes), 1, dtype), rng.integers(0, classes, 70)
    for t, deviation, smoothing in product(labels, (1, 60), (0, 0.2)):
        y = (deviation * rng.normal(size=(70, classes))).astype(dtype)
        options: dict[str, Any] = {"label_smoothing": smoothing, "reduce_across_batch": False}
        losses, slopes = ml.loss_and_gradient(y, t, SOFTMAX, reduction="sum", **options)
        for row in map(slice, range(0, 70, 3), range(1, 71, 3)):
            alone = ml.loss_and_gradient(y[row], t[row], SOFTMAX, reduction="sum", **options)
            assert same_bits([alone, (losses[row], slopes[row])])


@pytest.mark.parametrize("depth", [94.0, 96.0, 100.0, 102.0, 103.0, 103.4, 106.0, np.inf])
@pytest.mark.parametrize("apart", [-7.5, -1.0, 1.0, 7.5])
def test_the_least_logits_of_a_row_have_the_same_bits_alone_and_in_a_batch(
    depth: float, apart: float
) -> None:
    y = np.random.default_rng(0).uniform(-3, 0, (40, 20)).astype(np.float32)
    y[:, 0] = 0
    y[1::2] += np.float32(apart)
    y[:, 7] = y.max(1) - np.float32(depth)
    t = np.eye(20, dtype=np.float32)[np.zeros(40, int)]
    options: dict[str, Any] = {"reduction": "sum", "weight": 1e12}
    batch = ml.loss_gradient(y, t, SOFTMAX, **options)
    alone = [ml.loss_gradient(y[i : i + 1], t[i : i + 1], SOFTMAX, **options) for i in range(40)]
    assert same_bits([batch, np.concatenate(alone)])


def test_calls_from_many_threads_give_the_same_bits() -> None:
    y, t = data((301, 203), dtype=np.float32), data((301, 203), 1, np.float32)
    losses = ["huber", SOFTMAX, "log"]
    expected = [ml.loss_and_gradient(y, t, loss) for loss in losses]
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(ml.loss_and_gradient, y, t, losses[i % 3]) for i in range(240)]
        for i, call in enumerate(calls):
            assert same_bits([expected[i % 3], call.result(timeout=120)])


def test_other_python_threads_run_during_a_long_kernel() -> None:
    y = np.ones((1 << 12, 1 << 12), np.float32)
    out = np.empty_like(y)
    log: list[str] = []

    def work() -> None:
        log.append("begin")
        ml.loss_gradient(y, y, "log", out=out)
        log.append("end")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # so that only a release lets the main thread go on
    try:
        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        log.append("main")
        worker.join(120)
    finally:
        sys.setswitchinterval(interval)
    assert log.index("main") < log.index("end")


@pytest.mark.parametrize("loss_type", ["softmax_cross_entropy", "categorical_cross_entropy"])
def test_class_indices_are_checked_after_the_last_argument_was_converted(
    device: ml.Device, loss_type: str
) -> None:
    predictions = np.full((4, 5), 0.5, "f4")
    labels = np.arange(4)

    class Meddler:
        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            labels[:] = 2**44, -(2**44), 5, -1
            return np.ones(4, "f4")

    options = {"reduce_across_batch": False, "source_gradient": Meddler(), "device": device}
    with pytest.raises(ValueError, match=r"labels\[0\] is 17592186044416, but class indices"):
        ml.loss_and_gradient(predictions, labels, loss_type, **options)


@pytest.mark.parametrize("channels", [5, 50])
@pytest.mark.parametrize("loss_type", ["softmax_cross_entropy", "categorical_cross_entropy"])
def test_class_indices_that_another_thread_changes_are_no_class(
    device: ml.Device, loss_type: str, channels: int
) -> None:
    """Nothing is read or written out of bounds: they are refused, or are no class."""
    predictions = np.full((4000, channels), 0.5, "f4")
    labels = np.zeros(4000, "i8")
    stop = threading.Event()

    def meddle() -> None:
        while not stop.is_set():
            labels[2000:] = 2**44
            labels[2000:] = 0

    worker = threading.Thread(target=meddle)
    worker.start()
    try:
        for _ in range(20):
            try:
                loss, gradient = ml.loss_and_gradient(
                    predictions, labels, loss_type, reduce_across_batch=False, device=device
                )
            except ValueError as error:
                assert "is 17592186044416" in str(error)  # noqa: PT017
            else:
                assert np.isfinite(loss).all()
                assert np.isfinite(gradient).all()
    finally:
        stop.set()
        worker.join()
