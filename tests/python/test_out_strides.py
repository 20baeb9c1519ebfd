"""Destinations with strides: written where they lie, gaps stay, overlap is judged exactly."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import product
from typing import Any

import mpsnn_loss as ml
import numpy as np
import pytest
from asked import (
    LARGE,
    LAYOUTS,
    STRIDED,
    Asked,
    assert_same_bits,
    drawn,
    held_by,
    laid_out,
    reductions_of,
    skip_unless_supported,
)

MSE = "mean_squared_error"
SENTINEL = -7.25


@pytest.fixture
def name(device: ml.Device, loss_type: ml.MPSCNNLossType) -> str:
    skip_unless_supported(device, loss_type.name.lower())
    return loss_type.name.lower()


def with_gaps(shape: tuple[int, ...], dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """A destination in the middle of more memory on every axis, and that memory."""
    memory = np.full(tuple(2 * n + 3 for n in shape), SENTINEL).astype(dtype)
    return memory, memory[tuple(slice(1, 2 * n + 1, 2) for n in shape)]


def rows_apart(shape: tuple[int, ...], dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """Whole rows, with gaps between: a slice of the channels of a wider array."""
    memory = np.full((*shape[:-1], shape[-1] + 5), SENTINEL).astype(dtype)
    return memory, memory[..., 2 : 2 + shape[-1]]


def turned(shape: tuple[int, ...], dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """The axes in reverse order, every one backwards."""
    memory = np.full(tuple(n + 2 for n in shape[::-1]), SENTINEL).astype(dtype)
    inner = memory[tuple(slice(1, n + 1) for n in shape[::-1])]
    return memory, inner.T[tuple(slice(None, None, -1) for _ in shape)]


def one_column(shape: tuple[int, ...], dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """One of three columns of an array."""
    memory = np.full((*shape, 3), SENTINEL).astype(dtype)
    return memory, memory[..., 1]


def channels_first(shape: tuple[int, ...], dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """The last axis is the outermost."""
    memory = np.full((shape[-1], *shape[:-1]), SENTINEL).astype(dtype)
    return memory, np.moveaxis(memory, 0, -1)


Make = Callable[[tuple[int, ...], Any], tuple[np.ndarray, np.ndarray]]
WAYS: dict[str, Make] = {
    each.__name__: each for each in (with_gaps, rows_apart, turned, one_column, channels_first)
}


def assert_written(memory: np.ndarray, out: np.ndarray, expected: np.ndarray, what: Any) -> None:
    """The results are there, and every gap is as it was."""
    assert_same_bits({"out": out}, {"out": expected}, what)
    out[...] = SENTINEL
    assert (memory == np.asarray(SENTINEL, memory.dtype)).all(), str(what)


def check_destinations(device: ml.Device, call: Asked, make: Make, what: str) -> None:
    shape, dtype = call.arguments["predictions"].shape, call.arguments["predictions"].dtype
    expected = call.results(device)
    for wrt in call.wrt:
        memory, out = make(shape, dtype)
        assert ml.loss_gradient(**call.arguments, wrt=wrt, out=out, device=device) is out
        assert_written(memory, out, expected[wrt], f"{what}, {wrt} of {call}")
        gradient = ml.loss_and_gradient(**call.arguments, wrt=wrt, out=out, device=device)[1]
        assert gradient is out
        assert_written(memory, out, expected[wrt], f"{what}, {wrt} of {call}")
    if device.kind == "cpu":
        memory, out = make(shape, dtype)
        hessian_memory, hessian_out = make(shape, dtype)
        ml.loss_gradient_and_hessian(**call.arguments, out=out, hessian_out=hessian_out)
        assert_written(memory, out, expected["predictions"], f"{what}, {call}")
        assert_written(hessian_memory, hessian_out, expected["hessian"], f"{what}, {call}")
    if expected["loss"].ndim:
        alone = call.without("source_gradient").arguments
        memory, out = make(expected["loss"].shape, expected["loss"].dtype)
        assert ml.loss(**alone, out=out, device=device) is out
        assert_written(memory, out, expected["loss"], f"{what}, loss of {call}")
        ml.loss_and_gradient(**call.arguments, loss_out=out, device=device)
        assert_written(memory, out, expected["loss"], f"{what}, loss of {call}")


@pytest.mark.parametrize("way", WAYS)
def test_results_lie_where_the_strides_say_and_gaps_stay(
    device: ml.Device, name: str, dtype: str, way: str
) -> None:
    combinations = product(LAYOUTS, reductions_of(name)[::2], (True, False))
    for seed, (where, reduction, across) in enumerate(combinations):
        call = drawn(seed, name, dtype, where, reduction, across)
        check_destinations(device, call, WAYS[way], way)


@pytest.mark.parametrize("way", WAYS)
def test_gaps_stay_beside_large_results(device: ml.Device, name: str, dtype: str, way: str) -> None:
    sizes = [*LARGE, ((5, 70, 33), -1), ((6, 1030), 1), ((300000,), 0)]
    for seed, where in enumerate(held_by(device, sizes)):
        call = drawn(seed, name, dtype, where, reductions_of(name)[-1], True)
        check_destinations(device, call, WAYS[way], way)


def test_everything_strided_at_once(device: ml.Device, name: str, dtype: str) -> None:
    """Every operand and the destination in a way of its own."""
    ways = list(STRIDED.values())
    for seed, (where, way) in enumerate(product([*LAYOUTS[1:], *LARGE[:2]], WAYS)):
        call = drawn(seed, name, dtype, where, reductions_of(name)[-1], True)
        rng = np.random.default_rng(seed)
        mixed = laid_out(call, lambda _, rng=rng: ways[rng.integers(len(ways))])
        expected = call.results(device)
        memory, out = WAYS[way](where[0], dtype)
        ml.loss_gradient(**mixed.arguments, out=out, device=device)
        assert_written(memory, out, expected["predictions"], f"{way}, {call}")


def arrays(shape: tuple[int, ...] = (4, 3)) -> tuple[np.ndarray, np.ndarray]:
    return np.full(shape, 0.5, np.float32), np.ones(shape, np.float32)


FUNCTIONS = [ml.loss_gradient, ml.loss_and_gradient]
each_function = pytest.mark.parametrize("function", FUNCTIONS)


@each_function
def test_columns_of_one_array_are_apart(device: ml.Device, function: Any) -> None:
    """Their extents overlap, their elements do not: predictions, labels and out side by side."""
    memory = np.full((4, 3, 3), SENTINEL, np.float32)
    memory[..., 0], memory[..., 1] = 0.5, 1
    function(memory[..., 0], memory[..., 1], MSE, reduction="sum", out=memory[..., 2],
             device=device)  # fmt: skip
    assert (memory == np.array([0.5, 1, -1], np.float32)).all()
    columns = np.full((6, 2), 0.5, np.float32)
    function(columns[:, :1], np.ones((6, 1), np.float32), MSE, reduction="sum",
             out=columns[:, 1:], device=device)  # fmt: skip
    assert (columns == np.array([0.5, -1], np.float32)).all()


@each_function
def test_interleaved_rows_and_a_comb_are_apart(device: ml.Device, function: Any) -> None:
    memory = np.full((8, 3), 0.5, np.float32)
    function(memory[::2], memory[::2], MSE, reduction="sum", out=memory[1::2], device=device)
    assert not memory[1::2].any()
    assert (memory[::2] == 0.5).all()
    comb = np.full(64, 0.5, np.float32)
    y, out = comb[0:16:4], comb[2:34:8]  # no teeth meet
    function(y, np.ones(4, np.float32), MSE, reduction="sum", out=out, device=device)
    assert (out == -1).all()


@each_function
@pytest.mark.parametrize("operand", ["predictions", "labels", "weights", "source_gradient"])
def test_strided_memory_that_meets_in_one_element_is_refused(
    device: ml.Device, function: Any, operand: str
) -> None:
    memory = np.full(64, 0.5, np.float32)
    before = memory.tobytes()
    read, out = memory[0:24:2].reshape(4, 3), memory[3:39:3].reshape(4, 3)
    assert np.shares_memory(read, out)
    y, t = arrays()
    arguments: dict[str, Any] = {"predictions": y, "labels": t, "reduction": "none", operand: read}
    with pytest.raises(ValueError, match=r"^out must"):
        function(loss_type=MSE, **arguments, out=out, device=device)
    assert memory.tobytes() == before


def test_random_pairs_are_judged_as_numpy_judges_them(device: ml.Device) -> None:
    """Refused exactly where an element is shared; then nothing is written."""
    rng = np.random.default_rng(11)
    refused = accepted = 0
    t = np.ones((3, 2, 4), np.float32)
    for _ in range(400):
        memory = np.full(400, 0.5, np.float32)
        views = []
        for _ in range(2):
            steps = rng.choice([1, 2, 3, 5, 7, 8, 16, 24], 3) * rng.choice([1, 1, -1], 3)
            reach = [(n - 1) * int(s) for n, s in zip(t.shape, steps, strict=True)]
            low = -sum(r for r in reach if r < 0)
            high = sum(r for r in reach if r > 0)
            start = int(rng.integers(low, 400 - high))
            strides = tuple(4 * int(s) for s in steps)
            views.append(np.lib.stride_tricks.as_strided(memory[start:], t.shape, strides))
        y, out = views
        overlaps_itself = len(np.unique(addresses(out))) < out.size
        shares = np.shares_memory(y, out)
        same = y.ctypes.data == out.ctypes.data and y.strides == out.strides
        if overlaps_itself or (shares and not same):
            refused += 1
            with pytest.raises(ValueError, match=r"^out must"):
                ml.loss_gradient(y, t, MSE, reduction="sum", out=out, device=device)
            assert (memory == 0.5).all()
        else:
            accepted += 1
            ml.loss_gradient(y, t, MSE, reduction="sum", out=out, device=device)
            assert (out == -1).all()
            assert np.count_nonzero(memory == 0.5) == 400 - out.size
    assert refused > 50
    assert accepted > 50


def addresses(array: np.ndarray) -> np.ndarray:
    offsets = np.zeros(array.shape, np.int64)
    for index in np.ndindex(array.shape):
        offsets[index] = sum(i * s for i, s in zip(index, array.strides, strict=True))
    return offsets


@each_function
@pytest.mark.parametrize(
    "strides", [(0, 4), (12, 0), (4, 4), (8, 4), (0, 0)], ids=lambda s: f"strides {s}"
)
def test_a_destination_that_overlaps_itself_is_refused(
    device: ml.Device, function: Any, strides: tuple[int, int]
) -> None:
    y, t = arrays()
    memory = np.full(64, SENTINEL, np.float32)
    out = np.lib.stride_tricks.as_strided(memory, (4, 3), strides)
    for name in ("out",) if function is ml.loss_gradient else ("out", "loss_out"):
        with pytest.raises(ValueError, match=rf"^{name} must"):
            function(y, t, MSE, reduction="none", **{name: out}, device=device)
    assert (memory == SENTINEL).all()


def test_extents_of_1_and_of_0_have_any_strides(device: ml.Device) -> None:
    y, t = np.full((1, 3, 1), 0.5, np.float32), np.ones((1, 3, 1), np.float32)
    memory = np.full(16, SENTINEL, np.float32)
    for strides in ((0, 4, 0), (4, 4, 4), (1, 4, 3), (-400, 8, 12)):
        out = np.lib.stride_tricks.as_strided(memory, (1, 3, 1), strides)
        ml.loss_gradient(y, t, MSE, reduction="sum", out=out, device=device)
        assert (out == -1).all()
    nothing = np.zeros((0, 3), np.float32)
    out = np.lib.stride_tricks.as_strided(memory, (0, 3), (0, 0))
    assert ml.loss_gradient(nothing, nothing, MSE, out=out, device=device) is out


@each_function
def test_unaligned_and_byte_swapped_destinations_are_refused(
    device: ml.Device, function: Any
) -> None:
    y, t = arrays()
    memory = np.zeros(4 * 12 + 1, np.uint8)
    odd = memory[1:].view(np.float32).reshape(4, 3)
    stepped = np.lib.stride_tricks.as_strided(
        np.zeros(256, np.uint8).view(np.float32), (4, 3), (4 * 5 + 2, 4)
    )
    for out, error in (
        (odd, ValueError),
        (stepped, ValueError),
        (np.zeros((4, 3), ">f4"), (TypeError, ValueError)),
    ):
        with pytest.raises(error, match=r"^out must"):
            function(y, t, MSE, out=out, device=device)
        assert not out.any()


@each_function
def test_strided_destinations_that_cannot_be_written_are_refused(
    device: ml.Device, function: Any
) -> None:
    y, t = arrays()
    frozen = np.zeros((4, 6), np.float32)
    frozen.flags.writeable = False
    spread = np.broadcast_to(np.zeros(3, np.float32), (4, 3))
    for out in (frozen[:, ::2], spread):
        with pytest.raises(ValueError, match=r"^out must"):
            function(y, t, MSE, out=out, device=device)


def test_two_destinations_in_one_array(device: ml.Device) -> None:
    """Losses and gradients side by side; where they meet, they are refused."""
    y, t = arrays()
    memory = np.full((4, 3, 2), SENTINEL, np.float32)
    loss, gradient = ml.loss_and_gradient(
        y, t, MSE, reduction="none", out=memory[..., 1], loss_out=memory[..., 0], device=device
    )
    assert (loss == 0.25).all()
    assert (gradient == -1).all()
    assert (memory == np.array([0.25, -1], np.float32)).all()
    memory[:] = SENTINEL
    flat = memory.reshape(-1)
    for other in (flat[1:13], flat[12:24]):
        with pytest.raises(ValueError, match=r"^(loss_)?out must"):
            ml.loss_and_gradient(
                y, t, MSE, reduction="none", out=flat[:24:2].reshape(4, 3),
                loss_out=other.reshape(4, 3), device=device)  # fmt: skip
    assert (memory == SENTINEL).all()


def test_overlap_that_cannot_be_decided_in_time_is_refused_soon(device: ml.Device) -> None:
    """A knapsack of strides: whether an element is shared would take for ever to find out."""
    shape = (2,) * 20
    rng = np.random.default_rng(12)
    steps = [int(s) for s in rng.integers(10**4, 10**5, 20)]
    memory = np.zeros(sum(steps) + 2, np.float32)
    y = np.lib.stride_tricks.as_strided(memory, shape, [4 * s for s in steps])
    out = np.lib.stride_tricks.as_strided(memory[1:], shape, [4 * s for s in steps[::-1]])
    began = time.monotonic()
    with pytest.raises(ValueError, match=r"^out must"):
        ml.loss_gradient(y, np.ones(shape, np.float32), MSE, out=out, device=device)
    assert time.monotonic() - began < 30
    assert not memory.any()
