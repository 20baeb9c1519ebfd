"""What may be passed for an operand: forms of arrays, dtypes, buffers, and what is rounded."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from typing import Any

import mpsnn_loss as ml
import numpy as np
import pytest
from operands import (
    DESTINATIONS,
    MSE,
    OPERANDS,
    SOFTMAX,
    AsArray,
    Y,
    arguments,
    each_function,
    in_a_fresh_interpreter,
    operands_of,
    same,
)

FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "lists": lambda a: a.tolist(),
    "tuples": lambda a: tuple(map(tuple, a.tolist())),
    "lists of arrays": list,
    "lists of scalars": lambda a: [[np.float64(x) for x in row] for row in a],
    "an object with __array__": AsArray,
    "memoryviews": lambda a: memoryview(a.copy()),
    "views": lambda a: np.asfortranarray(a),
}

# --- A temporary of ours has no address that could be compared ---


@pytest.mark.parametrize("form", FORMS)
@each_function
def test_no_call_without_out_is_refused_for_overlap(function: Any, form: str) -> None:
    plain = arguments(function, np.float64)
    expected = function(**plain)
    for name in (*operands_of(function), "all of them"):
        names = operands_of(function) if name == "all of them" else (name,)
        for _ in range(100):
            odd = {k: FORMS[form](plain[k]) for k in names}
            assert same(function(**plain | odd), expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32, bool])
def test_ten_thousand_calls_with_lists_are_all_taken(dtype: Any) -> None:
    y, t = np.asarray([[1, 2]], dtype), [[3, 4]]
    kept: list[Any] = []
    for number in range(10_000):
        given = y.tolist() if number % 2 else y
        kept.append(ml.loss_gradient(given, t, MSE, source_gradient=[1.0][0]))
        ml.loss_and_gradient(
            y, t, MSE, weights=[[1, 2]], reduction="none", source_gradient=[[1, 1]]
        )
        if len(kept) > number % 7:  # blocks of memory come and go
            kept.clear()


@each_function
def test_a_fresh_interpreter_takes_plain_lists(function: Any) -> None:
    program = f"""
        for _ in range(3):
            ml.{function.__name__}([[1, 2]], [[3, 4]], "mean_squared_error", weights=[[1, 1]])
            ml.{function.__name__}([[1.0, 2]], [1], "softmax_cross_entropy")
            ml.{function.__name__}([1, 2], (3, 4), "huber")
        print("taken")
    """
    assert in_a_fresh_interpreter(program) == "taken"


# --- Each dtype is taken for what it is, or refused ---

TAKEN = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", ">i4", ">u8", ">f2",
         ">f4", ">f8"]  # fmt: skip
REFUSED = ["F", "D", "G", "M8[s]", "m8[s]", "U3", "S3", "O", "V2", "V4", "V8", "V1", "f4,f4",
           [("x", "f4")], [("x", "f4", (1,))], np.dtype((np.void, 2))]  # fmt: skip


@pytest.mark.parametrize("dtype", TAKEN)
@each_function
def test_built_in_dtypes_have_the_values_of_float64(function: Any, dtype: str) -> None:
    whole = {k: np.round(v * 4) if isinstance(v, np.ndarray) else v
             for k, v in arguments(function, np.float64).items()}  # fmt: skip
    for name in operands_of(function):
        values = abs(whole[name]) if np.dtype(dtype).kind == "u" else whole[name]
        with np.errstate(all="ignore"):
            odd = values.astype(dtype)
        exact = odd.astype(np.float64)
        if name == "predictions" and odd.dtype.kind == "f":
            exact = exact.astype(odd.dtype.newbyteorder("="))
        assert same(function(**whole | {name: odd}), function(**whole | {name: exact}))


def long_double_is_double() -> bool:
    return bool(np.finfo(np.longdouble).bits <= 64)


@pytest.mark.skipif(long_double_is_double(), reason="long double is float64 here")
@each_function
def test_long_double_predictions_are_refused(function: Any) -> None:
    given = arguments(function) | {"predictions": Y.astype(np.longdouble)}
    with pytest.raises(TypeError, match="predictions"):
        function(**given)


def ml_dtypes_types() -> list[Any]:
    """All but bfloat16, which the functions may know by a name of its own."""
    try:
        import ml_dtypes
    except ImportError:
        return []
    types = (t for t in vars(ml_dtypes).values() if isinstance(t, type))
    return [t for t in types if issubclass(t, np.generic) and t.__name__ != "bfloat16"]


def foreign_arrays(shape: tuple[int, ...]) -> Iterator[tuple[str, Any]]:
    """Memory that is not numbers of ours, whatever one character of its dtype says."""
    for dtype in REFUSED:
        yield str(dtype), np.zeros(shape, dtype)
    for type_ in ml_dtypes_types():
        yield type_.__name__, np.zeros(shape, type_)


def is_refused_and_untouched(
    function: Any, given: dict[str, Any], name: str, memory: np.ndarray
) -> None:
    before = memory.tobytes()
    with pytest.raises(TypeError, match=name):
        function(**given)
    assert memory.tobytes() == before


@each_function
def test_foreign_dtypes_are_refused_as_operands(function: Any) -> None:
    for name in operands_of(function):
        for what, array in foreign_arrays(Y.shape):
            for reduction in ("none", "sum"):
                if reduction == "sum" and name == "source_gradient":
                    continue
                given = arguments(function) | {"reduction": reduction}
                if reduction == "sum":
                    given.pop("source_gradient", None)
                out = np.full(
                    () if function is ml.loss and reduction == "sum" else Y.shape, 7, "f4"
                )
                try:
                    is_refused_and_untouched(function, given | {name: array, "out": out}, name, out)
                except BaseException as error:
                    raise AssertionError(f"{name} of {what}") from error


@each_function
def test_foreign_dtypes_are_refused_as_destinations(function: Any) -> None:
    for name in DESTINATIONS[: 1 if function is not ml.loss_and_gradient else 2]:
        for compute in (np.float16, np.float32, np.float64):
            for what, array in foreign_arrays((16, *Y.shape)):
                given = arguments(function, compute) | {name: array[4]}
                try:
                    is_refused_and_untouched(function, given, name, array)
                except BaseException as error:
                    raise AssertionError(f"{name} of {what}") from error


def test_foreign_class_indices_are_refused() -> None:
    for what, array in foreign_arrays((2,)):
        with pytest.raises((TypeError, ValueError), match="labels"):
            pytest.fail(f"{what} is taken: {ml.loss(Y, array, SOFTMAX)}")


@pytest.mark.parametrize("kernel", [ml.MPSNNForwardLoss, ml.MPSNNLossGradient])
def test_kernels_refuse_foreign_dtypes(kernel: Any) -> None:
    device = ml.cpu_device()
    call = kernel(device, ml.MPSCNNLossDescriptor(MSE, "none"))
    y = Y.reshape(2, 1, 1, 3)
    names = ("predictions", "labels", "weights", "out")
    for what, array in foreign_arrays(y.shape):
        for name in names:
            out = np.full(y.shape, 7, np.float32)
            given = {"predictions": y, "labels": y, "weights": y, "out": out} | {name: array}
            with pytest.raises(TypeError, match=name):
                pytest.fail(f"{name} of {what} is taken: {call(**given)}")
            assert (out == 7).all()
        with pytest.raises(TypeError, match="array"):
            ml.MPSImageBatch.from_array(device, array)


class Lying(ctypes.Structure):
    """One byte."""

    _fields_ = (("x", ctypes.c_uint8),)


@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="classes have __buffer__ from Python 3.12 on"
)
@each_function
def test_a_buffer_is_known_by_its_format_and_its_item_size_together(function: Any) -> None:
    """A float16 of one byte, and what other lies a buffer can tell."""
    memory = np.full(64, 0x55, np.uint8)
    for format, count, shape in (("B", 6, (2, 3)), ("c", 6, (2, 3)), ("b", 6, (2, 3))):
        view = memoryview(memory[:count]).cast("B").cast(format, shape)

        class Exporting:
            def __buffer__(self, flags: int, view: memoryview = view) -> memoryview:
                return view

        for name in DESTINATIONS[: 1 if function is not ml.loss_and_gradient else 2]:
            given = arguments(function) | {name: Exporting()}
            is_refused_and_untouched(function, given, name, memory)


def test_a_ctypes_record_is_no_number() -> None:
    records = (Lying * 3 * 2)()
    for name in OPERANDS:
        with pytest.raises(TypeError, match=name):
            ml.loss_gradient(**arguments(ml.loss_gradient) | {name: records})


# --- What is wider than the type of the computation is rounded to it, and a weight never to 0 ---


@pytest.mark.parametrize("label", [2**24 + 1, 2**24 + 3, -(2**24) - 1, 2**53 + 1, 2**63 - 1])
def test_labels_are_rounded_to_nearest(label: int) -> None:
    y, zero = np.zeros((1, 2), np.float32), np.zeros((1, 2))
    for given in (np.array([[label, 0]], np.int64), np.array([[label, 0]], np.float64)):
        rounded = given.astype(np.float32)
        gradient = ml.loss_gradient(y, given, MSE, reduction="none")
        assert gradient.dtype == np.float32
        assert (gradient == -2 * rounded).all()
    assert not ml.loss_gradient(y, zero, MSE).any()


TINY = float(np.finfo(np.float32).smallest_subnormal)


@pytest.mark.parametrize("weight", [1e-50, -1e-50, 1e-46, 5e-324])
@pytest.mark.parametrize("function", ["loss", "gradient"])
def test_a_weight_that_is_not_zero_never_counts_as_zero(weight: float, function: str) -> None:
    y = np.full((1, 4), 1e30, np.float32)
    weights = np.array([[weight, 0, 1, -0.0]])
    smallest = np.float32(np.copysign(TINY, weight))
    options: dict[str, Any] = {"reduction": "none", "weights": weights}
    results = {"loss": ml.loss(y, 0 * y, "mean_absolute_error", **options),
               "gradient": 1e30 * ml.loss_gradient(y, 0 * y, "mean_absolute_error", **options),
               }  # fmt: skip
    result = results[function][0]
    assert result[0] == pytest.approx(smallest * np.float64(np.float32(1e30)), rel=1e-6, abs=0)
    assert not result[1]
    assert not result[3]


def test_a_weight_below_the_range_is_counted_among_those_that_are_not_zero() -> None:
    y = np.ones((1, 4), np.float32)
    weights = np.array([[1e-50, 0, 1, 1]])
    options: dict[str, Any] = {"weights": weights, "reduction": "sum_by_non_zero_weights"}
    assert ml.loss(y, 0 * y, MSE, **options) == pytest.approx(2 / 3)
    gradient = ml.loss_gradient(y, 0 * y, MSE, **options)[0]
    assert gradient[1:] == pytest.approx([0, 2 / 3, 2 / 3])


# --- Weights that do not fold are valid too ---


@pytest.mark.parametrize("loss_type", ["cosine_distance", MSE, SOFTMAX])
@pytest.mark.parametrize("shape", [(1, 2, 3, 2, 4), (2, 2, 2, 2, 2, 3)], ids=str)
def test_weights_of_any_axes_are_valid(loss_type: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    y = rng.uniform(0.1, 0.9, shape)
    for kept in np.ndindex((2,) * len(shape)):
        axes = tuple(n if keep else 1 for n, keep in zip(shape, kept, strict=True))
        if loss_type == "cosine_distance" and axes[-1] != 1:
            continue
        weights = rng.uniform(0.5, 2, axes)
        dense = np.broadcast_to(weights, (*shape[:-1], axes[-1])).copy()
        results = [ml.loss_and_gradient(y, y[::-1], loss_type, reduction="sum", weights=v)
                   for v in (weights, dense)]  # fmt: skip
        np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-13)
        np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-13, atol=1e-14)
