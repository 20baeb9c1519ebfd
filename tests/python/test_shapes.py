"""Shapes are judged first: nothing is made for no elements, or for an operand that is refused."""

from __future__ import annotations

import sys
from typing import Any

import mpsnn_loss as ml
import numpy as np
import pytest
from operands import MSE, SANITIZED, SOFTMAX, in_a_fresh_interpreter

LIMITED = """
    import itertools, resource
    for loss in ("mean_squared_error", "softmax_cross_entropy", "huber"):  # all that is loaded once
        ml.loss_and_gradient(np.ones((2, 3), np.float32), np.ones((2, 3)), loss,
                             weights=np.ones((2, 3)), reduction="sum", source_gradient=1.0)
    size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (128 << 20),) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
    many, one = 1 << 28, np.ones((1, 1), np.float32)
"""
REFUSED_OR_NOT = """
    try:
        print(repr({call}))
    except (ValueError, TypeError) as error:
        print(type(error).__name__, error)
"""
WITHOUT_ELEMENTS = """
    y = np.broadcast_to(np.float32(1), {shape})
    values = {{"none": None, "sum": 0, "mean": np.nan, "sum_by_non_zero_weights": 0}}
    losses = ("mean_squared_error", "softmax_cross_entropy", "log")
    for loss, reduction, v in itertools.product(losses, values, (None, y, one[0])):
        options = {{"reduction": reduction, "weights": v}}
        total = ml.loss(y, y, loss, **options)
        fused, gradient = ml.loss_and_gradient(y, y, loss, **options)
        assert gradient.shape == ml.loss_gradient(y, y, loss, **options).shape == y.shape
        if reduction == "none":
            assert total.shape == fused.shape == y.shape
        else:
            np.testing.assert_equal((total, fused), (np.float32(values[reduction]),) * 2)
        try:  # so many results cannot be made where so many images have one
            ml.loss(y, y, loss, reduce_across_batch=False, **options)
        except (MemoryError, ValueError):
            assert y.shape[0] >= 1 << 20
"""
linux = pytest.mark.skipif(
    not sys.platform.startswith("linux") or SANITIZED,
    reason="needs RLIMIT_AS and /proc, and to be told where memory runs out",
)


def limited(program: str, **parts: Any) -> str:
    """What a program prints that may use no more than 128 MiB and 20 seconds."""
    return in_a_fresh_interpreter(LIMITED + program.format(**parts), MPSNN_LOSS_NUM_THREADS="1")


@linux
@pytest.mark.parametrize("shape", ["(1 << 60, 0)", "(0, 1 << 60)", "(1 << 31, 1 << 28, 0)",
                                   "(3, 0)",
                                   "(1 << 20, 0, 1 << 39)", "(2, 1 << 58, 0, 2)"])  # fmt: skip
def test_enormous_shapes_without_elements_cost_nothing(shape: str) -> None:
    limited(WITHOUT_ELEMENTS, shape=shape)


def refused(call: str) -> str:
    return limited(REFUSED_OR_NOT, call=call)


@linux
@pytest.mark.parametrize("operand", ["labels", "weights", "source_gradient"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "bool"])
def test_an_operand_of_the_wrong_shape_is_refused_before_it_is_converted(
    operand: str, dtype: str
) -> None:
    wrong = f"np.broadcast_to(one.astype({dtype!r}), (many, 2))"
    operands = {"predictions": "np.ones((2, 3), np.float32)", "labels": "np.ones((2, 3))"}
    given = ", ".join(f"{k}={v}" for k, v in {**operands, operand: wrong}.items())
    call = f"ml.loss_gradient({given}, loss_type='huber', reduction='none')"
    assert refused(call).startswith(f"ValueError {operand}")


@linux
@pytest.mark.parametrize("function", ["loss", "loss_gradient"])
def test_predictions_that_no_label_fits_are_refused_before_they_are_converted(
    function: str,
) -> None:
    for predictions in ("np.int8(1)", "np.float32(1).astype('>f4')", "np.float16(1)"):
        given = f"np.broadcast_to({predictions}, (many, 3)), np.ones((2, 3)), 'huber'"
        assert refused(f"ml.{function}({given})").startswith("ValueError")


@linux
def test_class_indices_of_the_wrong_shape_are_refused_before_they_are_converted() -> None:
    for dtype in ("int8", "uint64", "int32"):
        given = f"np.ones((2, 3)), np.broadcast_to(np.{dtype}(1), (many,)), 'softmax_cross_entropy'"
        assert refused(f"ml.loss({given})").startswith("ValueError labels")


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0), (2, 0, 3), (0, 2, 3)], ids=str)
@pytest.mark.parametrize("loss_type", [MSE, SOFTMAX, "huber", "log"])
def test_the_sum_of_nothing_is_0_and_its_mean_is_nan(
    shape: tuple[int, ...], loss_type: str
) -> None:
    y = np.zeros(shape, np.float32)
    for reduction, value in (("sum", 0), ("sum_by_non_zero_weights", 0), ("mean", np.nan)):
        loss, gradient = ml.loss_and_gradient(y, y, loss_type, reduction=reduction)
        np.testing.assert_equal(loss, np.float32(value))
        assert gradient.shape == shape
    assert ml.loss(y, y, loss_type, reduction="none").shape == shape
