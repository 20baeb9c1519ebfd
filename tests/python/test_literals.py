"""Special points against literals.json, high-precision values that know nothing of the reference.

The tables are made by make_literals.py. Also here: empty batches and empty images, whose results
the contract names one by one.
"""

from __future__ import annotations

import json
import runpy
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import mpsnn_loss as ml
import numpy as np
import pytest
from reference import losses

CASES: list[dict[str, Any]] = json.loads(
    Path(__file__).with_name("literals.json").read_text(encoding="utf-8")
)
RESULTS = ("loss", "d_predictions", "d_labels")


def case_id(case: dict[str, Any]) -> str:
    return f"{case['loss_type']}-{case['dtype']}-{case['name']}".replace(" ", "_")


def make_call(case: dict[str, Any]) -> losses.Call:
    """The case as one pixel with many channels; a loss per pixel as its sum."""
    y, t = (
        np.array([float.fromhex(x) for x in case[key]]).reshape(1, 1, 1, -1)
        for key in ("predictions", "labels")
    )
    reduction = "sum" if losses.LOSSES[case["loss_type"]].per_pixel else "none"
    return losses.make_call(y, t, case["loss_type"], reduction=reduction, **case["properties"])


def expected(case: dict[str, Any], result: str) -> np.ndarray:
    values = np.array([float(x) for x in case[result]])
    is_sum = result == "loss" and losses.LOSSES[case["loss_type"]].per_pixel
    return values if is_sum else values.reshape(1, 1, 1, -1)


def bound(call: losses.Call, result: str, dtype: str) -> losses.Array:
    if result == "loss":
        return losses.forward_bound(call, dtype)
    return losses.gradient_bound(call, dtype, wrt=result.removeprefix("d_"))


def test_every_loss_and_dtype_has_literals() -> None:
    assert {(case["loss_type"], case["dtype"]) for case in CASES} == {
        (member.name.lower(), dtype)
        for member in ml.MPSCNNLossType
        for dtype in ("float32", "float64")
    }


def test_literals_are_what_their_script_makes() -> None:
    pytest.importorskip("mpmath", reason="mpmath is not installed")
    script = runpy.run_path(str(Path(__file__).with_name("make_literals.py")))
    assert json.loads(json.dumps(script["build"]())) == CASES


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_reference_gives_the_literals_ten_times_as_accurately_as_an_engine_must(
    case: dict[str, Any],
) -> None:
    call = make_call(case)
    for result in RESULTS:
        wrt = result.removeprefix("d_")
        actual = call.forward() if result == "loss" else call.gradient(wrt=wrt)
        tolerance = bound(call, result, "float64") / 10
        losses.assert_within(actual, expected(case, result), tolerance, result)


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_device_gives_the_literals(device: ml.Device, case: dict[str, Any]) -> None:
    dtype = case["dtype"]
    supported, reason = device.supports(dtype)
    if not supported:
        pytest.skip(reason)
    call = make_call(case)
    arguments: dict[str, Any] = {
        "predictions": call.predictions.astype(dtype),
        "labels": call.labels.astype(dtype),
        "loss_type": call.loss_type,
        "reduction": call.reduction,
        "reduce_across_batch": False,
        "device": device,
        **case["properties"],
    }
    actual = {
        "loss": ml.loss(**arguments),
        "d_predictions": ml.loss_gradient(**arguments),
        "d_labels": ml.loss_gradient(**arguments, wrt="labels"),
    }
    for result in RESULTS:
        assert actual[result].dtype == dtype
        losses.assert_within(
            actual[result],
            expected(case, result),
            bound(call, result, dtype),
            result,
        )


EMPTY_SHAPES = [
    (0, 2, 2, 3),
    (2, 0, 2, 3),
    (2, 3, 0, 3),
    (2, 3, 2, 0),
    (0, 0, 0, 0),
    (0, 4),
    (2, 0),
    (0,),
]


def test_nothing_has_sum_0_mean_nan_and_empty_gradients(
    device: ml.Device, loss_type: ml.MPSCNNLossType, dtype: str
) -> None:
    per_pixel = losses.LOSSES[loss_type.name.lower()].per_pixel
    totals = {"sum": 0.0} if per_pixel else {"sum": 0, "mean": np.nan, "sum_by_non_zero_weights": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for shape, across in product(EMPTY_SHAPES, (True, False)):
            nothing = np.zeros(shape, dtype)
            loss_shape = () if across else shape[:1] if len(shape) > 1 else (1,)
            for reduction, value in totals.items():
                arguments: dict[str, Any] = {
                    "reduction": reduction,
                    "reduce_across_batch": across,
                    "device": device,
                }
                assert_empty_call(nothing, loss_type, np.full(loss_shape, value), arguments)
            if not per_pixel:
                arguments = {"reduction": "none", "reduce_across_batch": across, "device": device}
                assert_empty_call(nothing, loss_type, nothing, arguments)


def assert_empty_call(
    nothing: np.ndarray, loss_type: ml.MPSCNNLossType, loss: np.ndarray, arguments: dict[str, Any]
) -> None:
    wanted = loss.astype("float64" if nothing.dtype == np.float64 else "float32")
    alone = ml.loss(nothing, nothing, loss_type, **arguments)
    np.testing.assert_array_equal(np.asarray(alone), wanted, strict=True)
    for wrt in ("predictions", "labels"):
        gradient = ml.loss_gradient(nothing, nothing, loss_type, **arguments, wrt=wrt)
        np.testing.assert_array_equal(gradient, nothing, strict=True)
        fused, gradient = ml.loss_and_gradient(nothing, nothing, loss_type, **arguments, wrt=wrt)
        np.testing.assert_array_equal(np.asarray(fused), wanted, strict=True)
        np.testing.assert_array_equal(gradient, nothing, strict=True)
