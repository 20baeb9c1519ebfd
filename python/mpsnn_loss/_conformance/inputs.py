"""The inputs of the cases: the same bits for every version of NumPy, exact in float16.

N = 2, H = 3, W = 5 and C = 7 keep every divisor apart.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mpsnn_loss._conformance.problems import Problem, Values
from mpsnn_loss._reference.formulas import LOSSES

SHAPE = (2, 3, 5, 7)
GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
STEP = 1 / 64

# Properties that no result can do without noticing: with the source gradients, factors of which no
# two make a third, or one reading could pass for another. K is not C.
PROPERTIES: dict[str, Any] = {
    "weight": 19 / 16,
    "label_smoothing": 3 / 16,
    "number_of_classes": 5,
    "epsilon": 2.0**-10,
    "delta": 0.75,
}


def spread(shape: tuple[int, ...], start: float, low: float, high: float) -> Values:
    """Multiples of 1/64 in [low, high), spread evenly by a Weyl sequence."""
    place = (start + GOLDEN_RATIO * np.arange(1, math.prod(shape) + 1)) % 1
    steps = np.floor(place * ((high - low) / STEP))
    values: Values = low + STEP * steps
    return values.astype(np.float32).reshape(shape)


def predictions_and_labels(loss_type: str, shape: tuple[int, ...]) -> tuple[Values, Values]:
    """Inside the domain of the loss, away from its kinks; the labels do not sum to 1."""
    y_low, y_high, t_low, t_high = {
        "softmax_cross_entropy": (-4.0, 4.0, 0.0, 1.0),
        "sigmoid_cross_entropy": (-4.0, 4.0, 0.0, 1.0),
        "categorical_cross_entropy": (STEP, 1.0, 0.0, 1.0),
        "hinge": (-2.0, 2.0, 0.0, 2.0),
        "log": (STEP, 1.0, 0.0, 1.0),
        "kullback_leibler_divergence": (-4.0, -STEP, STEP, 1.0),
    }.get(loss_type, (-2.0, 2.0, -2.0, 2.0))
    y = spread(shape, 0.1, y_low, y_high)
    t = spread(shape, 0.6, t_low, t_high)
    if loss_type == "hinge":  # labels are 0 or 1, and no prediction lies on the margin
        return y + np.float32(STEP / 2), np.floor(t)
    if (y_low, t_low) == (-2.0, -2.0):  # no label equals its prediction
        t = t + np.float32(STEP / 2)
    return y, t


def weights_with_zeros(loss_type: str, shape: tuple[int, ...] = SHAPE) -> Values:
    """Other numbers of zeros in each image, whole pixels among them."""
    channels = 1 if LOSSES[loss_type].per_pixel else shape[3]
    v = spread((*shape[:3], channels), 0.35, 0.25, 2.0)
    v[spread(v.shape, 0.8, 0.0, 1.0) < 0.25] = 0
    v[0, 0, 1] = v[-1, 0, 0] = v[-1, -1, -1] = 0
    return v


def source_gradients(reduction: str, shape: tuple[int, ...] = SHAPE) -> Values:
    """Another one for each image, and for each element where nothing is reduced."""
    if reduction == "none":
        g: Values = spread(shape, 0.9, -1.0, 1.0) + np.float32(STEP / 2)
        return g
    return np.resize(np.array([11 / 16, -21 / 16], np.float32), shape[0]).reshape(-1, 1, 1, 1)


def everything_on(loss_type: str, reduction: str, across: bool = False) -> Problem:
    y, t = predictions_and_labels(loss_type, SHAPE)
    return Problem(
        loss_type=loss_type,
        predictions=y,
        labels=t,
        weights=weights_with_zeros(loss_type),
        source_gradients=source_gradients(reduction),
        reduction=reduction,
        reduce_across_batch=across,
        **PROPERTIES,
    )


def plain(loss_type: str, reduction: str = "sum", shape: Any = SHAPE, **fields: Any) -> Problem:
    """No weights, source gradients of 1, and the default properties but for what is given."""
    y, t = predictions_and_labels(loss_type, shape)
    given = {
        "predictions": y,
        "labels": t,
        "source_gradients": np.ones((len(y), 1, 1, 1), np.float32),
        "number_of_classes": y.shape[-1],
        **fields,
    }
    return Problem(loss_type=loss_type, reduction=reduction, **given)
