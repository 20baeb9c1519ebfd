"""Fused and separate calls give the same bits, whatever the scales: a result depends on the
operands and the properties alone, not on what else is asked for."""

from __future__ import annotations

from typing import Any

import mpsnn_loss as ml
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import losses

NAMES = [member.name.lower() for member in ml.MPSCNNLossType]
REDUCTIONS = [member.name.lower() for member in ml.MPSCNNReductionType]
SHAPES = [(1, 1), (2, 3), (5, 2, 3, 7), (40, 3), (40, 17), (3, 300), (2, 700, 30)]

# Signs and powers of ten over the range of each type; and what needs nothing special.
FLOAT32, FLOAT64 = (-45, 38), (-320, 307)
signed = st.sampled_from([1.0, -1.0])


def scales(dtype: str) -> st.SearchStrategy[float]:
    low, high = FLOAT64 if dtype == "float64" else FLOAT32
    powers = st.integers(low, high).map(lambda power: 10.0**power)
    return st.one_of(st.sampled_from([1.0, 3.0, 0.3]), powers)


@st.composite
def calls(draw: st.DrawFn) -> tuple[Any, Any, str, dict[str, Any], dict[str, Any]]:
    """Predictions, labels, a loss, and the arguments that a loss and that only a gradient has."""
    loss_type, dtype = draw(st.sampled_from(NAMES)), draw(st.sampled_from(["f2", "f4", "f8"]))
    formula = losses.LOSSES[loss_type]
    shape, scale = draw(st.sampled_from(SHAPES)), scales({"f8": "float64"}.get(dtype, "float32"))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    y, t = (array.astype(dtype) for array in formula.inputs(rng, shape))
    if draw(st.booleans()):
        with np.errstate(all="ignore"):
            y = (y * draw(scale)).astype(dtype)
    compute = "f8" if dtype == "f8" else "f4"
    weight = draw(scale) * draw(signed)
    reduction = "sum" if formula.per_pixel else draw(st.sampled_from(REDUCTIONS))
    common: dict[str, Any] = {
        "reduction": reduction,
        "reduce_across_batch": draw(st.booleans()),
        "weight": weight,
        "epsilon": draw(scale),
        "delta": draw(scale),
    }
    if formula.smoothing_level is not None:
        common["label_smoothing"] = draw(st.sampled_from([0.0, 0.1, 1e-30, 1.0]))
        common["number_of_classes"] = draw(st.sampled_from([1, 7, 10**9]))
    of_pixels, of_channels = (*shape[:-1], 1), (1,) * (len(shape) - 1) + shape[-1:]
    extents = draw(
        st.sampled_from([None, of_pixels, of_channels, shape, (shape[0], *of_pixels[1:])])
    )
    if extents is not None:
        if formula.per_pixel:
            extents = (*extents[:-1], 1)
        v = np.where(rng.random(extents) < 0.1, 0, rng.uniform(0.5, 2, extents)) * draw(scale)
        common["weights"] = v.astype(compute)
    wrt, own = draw(st.sampled_from(["predictions", "labels"])), {}
    takes_indices = loss_type in ("softmax_cross_entropy", "categorical_cross_entropy")
    if takes_indices and draw(st.booleans()):
        t, wrt = rng.integers(shape[-1], size=shape[:-1]), "predictions"
    if draw(st.booleans()):
        g = draw(scale) * draw(signed)
        per_image = reduction != "none" and not common["reduce_across_batch"]
        if reduction == "none" and draw(st.booleans()):
            own["source_gradient"] = (g * rng.normal(size=shape)).astype(compute)
        elif per_image and draw(st.booleans()):
            own["source_gradient"] = (g * rng.normal(size=shape[0])).astype(compute)
        else:
            own["source_gradient"] = g
    return y, t, loss_type, common, {**own, "wrt": wrt}


def same_bits(a: Any, b: Any) -> bool:
    """Also of zeros; but any NaN is like another."""
    a, b = np.asarray(a), np.asarray(b)
    either = np.isnan(a) & np.isnan(b)
    return bool(np.all((a.view(f"u{a.itemsize}") == b.view(f"u{b.itemsize}")) | either))


@settings(derandomize=True, deadline=None, max_examples=500, database=None)
@given(calls())
def test_fused_and_separate_calls_give_the_same_bits(
    call: tuple[Any, Any, str, dict[str, Any], dict[str, Any]],
) -> None:
    y, t, loss_type, common, own = call
    with np.errstate(all="ignore"):
        loss = ml.loss(y, t, loss_type, **common)
        gradient = ml.loss_gradient(y, t, loss_type, **common, **own)
        fused = ml.loss_and_gradient(y, t, loss_type, **common, **own)
    assert same_bits(fused[0], loss)
    assert same_bits(fused[1], gradient)


def softmax_rows(rng: np.random.Generator, rows: int, channels: int) -> tuple[Any, Any, Any]:
    """Predictions, labels and weights: with and without dominant channels, and over their range."""
    y = rng.normal(size=(rows, channels)) * np.where(rng.random((rows, 1)) < 0.5, 1, 60)
    y[rng.random(rows) < 0.2, :2] = 300  # two that are as likely, so that none is dominant
    low, high = FLOAT32
    powers = rng.uniform(*((low, high), (-40, -20), (30, high))[rng.integers(3)], size=(rows, 1))
    return y.astype("f4"), rng.random((rows, channels), "f4"), (10.0**powers).astype("f4")


@pytest.mark.parametrize("channels", [2, 3, 10, 16, 17, 21, 24, 40, 150, 255, 300])
def test_a_softmax_row_has_the_same_bits_among_others_as_alone(channels: int) -> None:
    """Whatever it weighs: what float64 looks at again is decided row by row."""
    rng = np.random.default_rng(channels)
    for rows in 20 * [2, 7, 8, 9, 64, 70]:
        y, t, v = softmax_rows(rng, rows, channels)
        one = slice(k := int(rng.integers(rows)), k + 1)
        for function in (ml.loss_gradient, ml.loss_and_gradient, ml.loss_gradient_and_hessian):
            among, alone = (
                function(y[of], t[of], "softmax_cross_entropy", reduction="sum", weights=v[of])
                for of in (slice(None), one)
            )
            if function is ml.loss_gradient:
                among, alone = (among,), (alone,)
            for a, b in zip(among, alone, strict=True):
                if np.ndim(a):  # the loss is that of all rows
                    assert same_bits(a[one], b)
