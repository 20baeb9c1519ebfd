"""bfloat16 in the functions: stored, computed in float32, rounded once; and float32 destinations.

The CPU engine takes it. Kernels do not, and without ml_dtypes there is no array to hand back.
"""

from __future__ import annotations

import sys
from itertools import product
from typing import Any

import mpsnn_loss as ml
import numpy as np
import pytest
from asked import (
    LARGE,
    NAMES,
    STRIDED,
    Asked,
    assert_as_the_reference,
    assert_same_bits,
    cells,
    drawn,
    laid_out,
    reductions_of,
)
from conftest import Tally
from operands import in_a_fresh_interpreter
from reference import losses

ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
MSE = "mean_squared_error"
SOFTMAX = "softmax_cross_entropy"
CPU = ml.cpu_device()
GRADIENTS = ("predictions", "labels", "hessian")

each_loss = pytest.mark.parametrize("name", NAMES)


def in_float32(call: Asked) -> Asked:
    """The same values, stored in float32."""
    wide = {
        key: array.astype(np.float32)
        for key, array in call.arguments.items()
        if isinstance(array, np.ndarray) and array.dtype.itemsize == 2
    }
    return call.having(**wide)


@each_loss
def test_every_cell(name: str, tally: Tally) -> None:
    for cell in cells(name, BFLOAT16):
        results = cell.results(CPU)
        assert_as_the_reference(cell, results, tally)
        assert_same_bits(cell.fused(CPU), {k: results[k] for k in ("loss", "predictions")}, cell)


@each_loss
def test_results_are_those_of_float32_rounded_once(name: str) -> None:
    combinations = product([*LARGE, ((3, 5, 2), 1), ((130, 9), -1)], reductions_of(name)[-3:])
    for seed, (where, reduction) in enumerate(combinations):
        call = drawn(seed, name, BFLOAT16, where, reduction, True)
        wide = in_float32(call).results(CPU)
        rounded = {key: wide[key].astype(BFLOAT16) for key in GRADIENTS if key in wide}
        assert_same_bits(call.results(CPU), {"loss": wide["loss"], **rounded}, call)


def test_rounding_is_to_nearest_even_up_to_infinity() -> None:
    """The gradient is the source gradient itself: every float32 around the middles."""
    bits = np.arange(0, 2**32, 0x7FFF, dtype=np.uint64).astype(np.uint32)
    middles = np.array([0x3F808000, 0x3F818000, 0x7F7F7FFF, 0x7F7F8000, 0x00008000, 0x00018000,
                        0x80008001, 0x7F800000, 0xFF800000, 0x7FC00000], np.uint32)  # fmt: skip
    g = np.concatenate([bits, middles]).view(np.float32)
    g = g[(np.abs(g) >= np.finfo(np.float32).tiny) | (g == 0) | ~np.isfinite(g)]
    y, t = np.ones(g.shape, BFLOAT16), np.zeros(g.shape, BFLOAT16)
    options: dict[str, Any] = {"reduction": "none", "source_gradient": g}
    gradient = ml.loss_gradient(y, t, "mean_absolute_error", **options)
    with np.errstate(all="ignore"):
        expected = g.astype(BFLOAT16)
    nan = np.isnan(g)
    assert np.isnan(gradient[nan].astype(np.float32)).all()
    assert_same_bits({"g": gradient[~nan]}, {"g": expected[~nan]})


def test_dtypes_of_results() -> None:
    y = np.full((2, 3), 0.5, BFLOAT16)
    for t in (y, y.astype(np.float32), y.astype(np.float16), np.array([0, 2])):
        loss, gradient = ml.loss_and_gradient(y, t, SOFTMAX)
        assert (loss.dtype, gradient.dtype) == (np.float32, BFLOAT16)
        assert gradient.flags.c_contiguous
        per_element = ml.loss(y, t, SOFTMAX, reduction="none")
        assert per_element.dtype == np.float32
        assert ml.loss_gradient_and_hessian(y, t, SOFTMAX)[1].dtype == BFLOAT16


@each_loss
def test_it_mixes_with_float16_and_float32(name: str, tally: Tally) -> None:
    stored = ("float32", "float16", BFLOAT16)
    for seed, (y, t, w) in enumerate(product(stored, repeat=3)):
        call = drawn(seed, name, BFLOAT16, ((3, 5, 2), 1), reductions_of(name)[-1], True, "samples")
        given = call.arguments
        labels = given["labels"] if call.has_indices else given["labels"].astype(t)
        call = call.having(predictions=given["predictions"].astype(y), labels=labels,
                           sample_weight=given["sample_weight"].astype(w))  # fmt: skip
        assert_as_the_reference(call, call.results(CPU), tally)


def test_float64_labels_are_rounded_to_float32(tally: Tally) -> None:
    y, t = np.full((2, 3), 0.5, BFLOAT16), np.full((2, 3), 1 / 3)
    call = Asked({"predictions": y, "labels": t.astype(np.float32), "loss_type": MSE,
                  "reduction": "mean"})  # fmt: skip
    assert_same_bits(call.having(labels=t).results(CPU), call.results(CPU))


@each_loss
def test_any_strides_give_the_bits_of_a_contiguous_copy(name: str) -> None:
    for lay in (*STRIDED.values(), unaligned):
        call = drawn(0, name, BFLOAT16, ((3, 5, 2, 2), 1), reductions_of(name)[-1], True)
        expected = call.results(CPU)
        assert_same_bits(laid_out(call, lambda _, lay=lay: lay).results(CPU), expected, call)


def unaligned(array: np.ndarray) -> np.ndarray:
    if array.dtype != BFLOAT16:
        return array
    memory = np.zeros(array.nbytes + 1, np.uint8)
    moved = memory[1:].view(np.uint16).reshape(array.shape)
    moved[...] = array.view(np.uint16)
    return moved.view(BFLOAT16)


@pytest.mark.parametrize("narrow", ["float16", BFLOAT16], ids=str)
@each_loss
def test_narrow_predictions_take_a_float32_destination(
    name: str, narrow: Any, tally: Tally
) -> None:
    """Where a gradient of float16 would underflow: nothing is rounded on the way."""
    for seed, where in enumerate([((3, 5, 2), 1), *LARGE]):
        call = drawn(seed, name, narrow, where, reductions_of(name)[-1], True)
        for wrt in call.wrt:
            out = np.full(where[0], np.nan, np.float32)
            assert ml.loss_gradient(**call.arguments, wrt=wrt, out=out) is out
            error = losses.assert_within(out, *call.expected(wrt), f"{wrt} of {call}")
            tally.add("float32", error, name)
            fused = np.full(where[0], np.nan, np.float32)
            ml.loss_and_gradient(**call.arguments, wrt=wrt, out=fused)
            assert_same_bits({"out": fused}, {"out": out})
            narrowed = ml.loss_gradient(**call.arguments, wrt=wrt)
            with np.errstate(over="ignore"):
                assert_same_bits({"out": narrowed}, {"out": out.astype(narrow)}, call)


def test_a_mean_that_underflows_in_float16_does_not_in_a_float32_destination() -> None:
    y, t = np.full((1000, 1000), 1, np.float16), np.zeros((1000, 1000), np.float16)
    weight = {"weight": 1e-3}
    assert not ml.loss_gradient(y, t, MSE, **weight).any()
    out = np.empty(y.shape, np.float32)
    ml.loss_gradient(y, t, MSE, **weight, out=out)
    np.testing.assert_allclose(out, 2e-9, rtol=1e-6)


@pytest.mark.parametrize("narrow", ["float16", BFLOAT16], ids=str)
def test_other_dtypes_of_destinations_are_refused(narrow: Any) -> None:
    y = np.full((2, 3), 0.5, narrow)
    other = np.dtype("float16") if np.dtype(narrow) == BFLOAT16 else BFLOAT16
    for dtype in (np.float64, other, np.uint16, np.int16):
        out = np.zeros((2, 3), dtype)
        for function in (ml.loss_gradient, ml.loss_and_gradient, ml.loss_gradient_and_hessian):
            with pytest.raises(TypeError, match=r"^out must"):
                function(y, y, MSE, out=out)
    with pytest.raises(TypeError, match=r"^out must .*float32"):
        ml.loss(y, y, MSE, reduction="none", out=np.zeros((2, 3), narrow))
    for wide in (np.float32, np.float64):
        with pytest.raises(TypeError, match=r"^out must"):
            ml.loss_gradient(y.astype(wide), y, MSE, out=np.zeros((2, 3), narrow))


def test_in_place() -> None:
    y, t = drawn_arrays()
    expected = ml.loss_gradient(y, t, MSE)
    assert ml.loss_gradient(y, t, MSE, out=y) is y
    assert_same_bits({"y": y}, {"y": expected})
    y, t = drawn_arrays()
    with pytest.raises(TypeError, match=r"^out must"):  # the same memory, another dtype
        ml.loss_gradient(y, t, MSE, out=y.view(np.float16))


def drawn_arrays() -> tuple[np.ndarray, np.ndarray]:
    values = np.random.default_rng(8).normal(size=(2, 7, 300))
    return values[0].astype(BFLOAT16), values[1].astype(BFLOAT16)


def test_kernels_descriptors_and_images_refuse_it() -> None:
    y = np.full((2, 3), 0.5, BFLOAT16)
    descriptor = ml.MPSCNNLossDescriptor(MSE, "sum")
    with pytest.raises(TypeError, match="bfloat16"):
        ml.MPSNNForwardLoss(CPU, descriptor)(y, y)
    with pytest.raises(TypeError, match="bfloat16"):
        ml.MPSNNLossGradient(CPU, descriptor)(y, y)
    with pytest.raises(TypeError, match="bfloat16"):
        ml.MPSImageBatch.from_array(CPU, y)
    with pytest.raises(ValueError, match="bfloat16"):
        ml.MPSImageDescriptor("bfloat16", width=1, height=1, feature_channels=1)


def test_without_ml_dtypes_there_is_no_fresh_result_but_an_out() -> None:
    """Tensors of torch may be bfloat16 where ml_dtypes is not installed."""
    pytest.importorskip("torch", reason="torch is not installed")
    program = """
        import sys
        sys.modules["ml_dtypes"] = None
        import torch
        y = torch.full((2, 3), 0.5, dtype=torch.bfloat16)
        try:
            ml.loss_gradient(y, y, "huber")
        except TypeError as error:
            print("ml_dtypes" in str(error))
        for dtype in (torch.bfloat16, torch.float32):
            out = torch.full((2, 3), 7, dtype=dtype)
            ml.loss_gradient(y, y, "huber", out=out)
            print(out.abs().sum().item())
        print(ml.loss(y, y, "huber"))
    """
    assert in_a_fresh_interpreter(program).split() == ["True", "0.0", "0.0", "0.0"]


def test_torch_tensors_are_read_and_written_where_they_lie() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    y, t = drawn_arrays()
    tensors = [torch.tensor(a.astype(np.float32)).to(torch.bfloat16) for a in (y, t)]
    expected = ml.loss_gradient(y, t, MSE)
    assert_same_bits({"y": ml.loss_gradient(*tensors, MSE)}, {"y": expected})
    out = torch.empty_like(tensors[0])
    assert ml.loss_gradient(*tensors, MSE, out=out) is out
    np.testing.assert_array_equal(out.float().numpy(), expected.astype(np.float32))


def test_other_devices_refuse_it_in_a_sentence() -> None:
    others = [device for device in ml.devices() if device.kind != "cpu"]
    if not others:
        pytest.skip("only the CPU engine is here")
    y = np.full((2, 3), 0.5, BFLOAT16)
    with pytest.raises((TypeError, ValueError), match="bfloat16"):
        ml.loss_gradient(y, y, MSE, device=others[0])


def test_it_is_not_imported_for_other_types() -> None:
    program = """
        import sys
        ml.loss_gradient(np.ones((2, 3), np.float16), np.ones((2, 3)), "huber")
        print("ml_dtypes" in sys.modules)
    """
    assert "ml_dtypes" in sys.modules
    assert in_a_fresh_interpreter(program) == "False"
