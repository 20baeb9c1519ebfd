"""The formulas of the losses: a row of `LOSSES` each.

In the formulas y are predictions, t labels (already smoothed where the loss smooths them) and k the
call with its epsilon and delta. To add a loss, add a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Constants(Protocol):
    """What a formula may ask of its call."""

    @property
    def epsilon(self) -> float: ...
    @property
    def delta(self) -> float: ...
    @property
    def label_smoothing(self) -> float: ...


ElementFunction = Callable[[Array, Array, Constants], Array]
Inputs = Callable[[np.random.Generator, "tuple[int, ...]"], "tuple[Array, Array]"]


# --- The parts of the formulas that do not fit on one line ---


def times(label_factor: Array, other: Array) -> Array:
    """A product whose label factor is exactly 0 is exactly 0, whatever the other factor."""
    return np.where(label_factor == 0, 0.0, label_factor * other)


def over(label_factor: Array, other: Array) -> Array:
    """The same for a quotient."""
    return np.where(label_factor == 0, 0.0, label_factor / other)


def is_first_top(y: Array) -> NDArray[np.bool_]:
    """True at the first largest channel of each row."""
    if y.size == 0:
        return np.zeros(y.shape, bool)
    first: NDArray[np.bool_] = np.arange(y.shape[-1]) == y.argmax(axis=-1)[..., None]
    return first


def softmax_parts(y: Array) -> tuple[Array, Array, Array]:
    """p, 1 - p and lp over the channels. A row with NaN or +inf, or with only -inf, is NaN."""
    if y.size == 0:
        return y, y, y
    top = y.max(axis=-1, keepdims=True)
    # What the rounding of y - top lost is kept, so that far-away channels stay accurate.
    shifted = y - top
    y_less_shifted = y - shifted
    lost = (y - (shifted + y_less_shifted)) + (y_less_shifted - top)
    lost = np.where(np.isfinite(lost), lost, 0.0)
    exponential = np.exp(shifted) * (1 + lost)
    # The first largest channel gives exactly 1; log1p of the others keeps a tiny loss accurate.
    is_top = is_first_top(y)
    others = np.where(is_top, 0.0, exponential).sum(axis=-1, keepdims=True)
    undefined = ~np.isfinite(top)
    p = np.where(undefined, np.nan, exponential / (1 + others))
    rest = np.where(is_top, np.where(undefined, np.nan, others / (1 + others)), 1 - p)
    return p, rest, np.where(undefined, np.nan, shifted + (lost - np.log1p(others)))


def softmax(y: Array) -> Array:
    return softmax_parts(y)[0]


def softmax_and_rest(y: Array) -> tuple[Array, Array]:
    """p and 1 - p, which is small where p is near 1."""
    return softmax_parts(y)[:2]


def log_softmax(y: Array) -> Array:
    return softmax_parts(y)[2]


def sigmoid_minus_label(y: Array, t: Array) -> Array:
    """No overflow, and no cancellation at t = 0 and t = 1."""
    small = np.exp(-np.abs(y))
    difference: Array = np.where(y < 0, (1 - t) * small - t, (1 - t) - t * small) / (1 + small)
    return difference


def sigmoid_minus_label_operands(y: Array, t: Array, k: Constants) -> Array:
    small = np.exp(-np.abs(y))
    rest, label = np.abs(1 - t), np.abs(t)
    terms: Array = np.where(y < 0, rest * small + label, rest + label * small) / (1 + small)
    return terms + (label if k.label_smoothing > 0 else 0.0)  # smoothed labels are rounded


def sigmoid_slope(y: Array) -> Array:
    """σ(1 - σ), which is the same on both sides of 0."""
    small = np.exp(-np.abs(y))
    slope: Array = small / (1 + small) ** 2
    return slope


def over_square(label_factor: Array, other: Array) -> Array:
    """A label factor / other², whose square may be out of range."""
    return over(over(label_factor, other), other)


def inside_margin(y: Array, t: Array, value: Array) -> Array:
    """`value` where the hinge is positive, else 0; NaN stays NaN."""
    hinge = 1 - (2 * t - 1) * y
    return np.where(np.isnan(hinge), np.nan, np.where(hinge > 0, value, 0.0))


def huber(e: Array, delta: float) -> Array:
    beyond = delta * delta / 2 + delta * (np.abs(e) - delta)
    return np.where(np.abs(e) <= delta, e * e / 2, beyond)


def huber_curvature(e: Array, delta: float) -> Array:
    """1 where the loss is a square; NaN stays NaN."""
    return np.where(np.isnan(e), np.nan, np.where(np.abs(e) <= delta, 1.0, 0.0))


def nowhere_curved(y: Array, t: Array, k: Constants) -> Array:
    return np.zeros(y.shape)


def log_size(x: Array) -> Array:
    """At least 1: the argument is a rounded sum, which counts even where its logarithm is small."""
    return np.maximum(1.0, np.abs(np.log(x)))


# --- Inputs a loss is meant for ---


def real_inputs(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Array, Array]:
    y, t = rng.normal(0, 2, shape), rng.normal(0, 2, shape)
    return y, np.where(rng.random(shape) < 0.1, y, t)


def logit_inputs(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """A third of the labels is 0, a third is 1, the others are between."""
    y, t, kind = rng.normal(0, 4, shape), rng.random(shape), rng.integers(3, size=shape)
    return y, np.where(kind == 2, t, kind)


def probability_inputs(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Array, Array]:
    return rng.uniform(0.02, 0.98, shape), logit_inputs(rng, shape)[1]


def log_probability_inputs(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Array, Array]:
    y, t = logit_inputs(rng, shape)
    return log_softmax(y), t


# --- The losses ---


@dataclass(frozen=True)
class Formula:
    loss: ElementFunction
    d_predictions: ElementFunction | None  # None: channels are coupled
    d_labels: ElementFunction
    d2_predictions: ElementFunction | None  # None: channels are coupled
    inputs: Inputs
    # Labels are smoothed to t·(1 - s) + s·level(K).
    smoothing_level: Callable[[int], float] | None = None
    # Distance to the nearest point where the loss is not smooth.
    kink: ElementFunction | None = None
    # One loss per pixel, and only its sum is defined.
    per_pixel: bool = False
    # "mean_by_weights" divides by the sum of v·t, else by that of v.
    weighs_labels: bool = False
    # What a formula subtracts, in magnitude: its error is a few ULP of that, not of the difference.
    loss_operands: ElementFunction | None = None
    d_predictions_operands: ElementFunction | None = None
    d_labels_operands: ElementFunction | None = None
    d2_predictions_operands: ElementFunction | None = None

    @property
    def couples_channels(self) -> bool:
        """Whether each channel depends on its whole pixel, as a softmax does."""
        return self.d_predictions is None


LOSSES: dict[str, Formula] = {
    "mean_absolute_error": Formula(
        loss=lambda y, t, k: np.abs(y - t),
        d_predictions=lambda y, t, k: np.sign(y - t),
        d_labels=lambda y, t, k: -np.sign(y - t),
        d2_predictions=nowhere_curved,
        inputs=real_inputs,
        kink=lambda y, t, k: np.abs(y - t),
    ),
    "mean_squared_error": Formula(
        loss=lambda y, t, k: (y - t) ** 2,
        d_predictions=lambda y, t, k: 2 * (y - t),
        d_labels=lambda y, t, k: -2 * (y - t),
        d2_predictions=lambda y, t, k: np.full(y.shape, 2.0),
        inputs=real_inputs,
    ),
    "softmax_cross_entropy": Formula(
        loss=lambda y, t, k: -times(t, log_softmax(y)),
        d_predictions=None,
        d_labels=lambda y, t, k: -log_softmax(y),
        d2_predictions=None,
        inputs=logit_inputs,
        smoothing_level=lambda classes: 1 / classes,
        weighs_labels=True,
    ),
    "sigmoid_cross_entropy": Formula(
        loss=lambda y, t, k: np.maximum(y, 0) - times(t, y) + np.log1p(np.exp(-np.abs(y))),
        d_predictions=lambda y, t, k: sigmoid_minus_label(y, t),
        d_labels=lambda y, t, k: -y,
        d2_predictions=lambda y, t, k: sigmoid_slope(y),
        inputs=logit_inputs,
        smoothing_level=lambda classes: 1 / 2,
        # At t = 0 and t = 1 nothing is rounded before the logarithm is added.
        loss_operands=lambda y, t, k: np.where((t == 0) | (t == 1), 0, (1 + np.abs(t)) * np.abs(y)),
        d_predictions_operands=sigmoid_minus_label_operands,
    ),
    "categorical_cross_entropy": Formula(
        loss=lambda y, t, k: -times(t, np.log(y)),
        d_predictions=lambda y, t, k: -over(t, y),
        d_labels=lambda y, t, k: -np.log(y),
        d2_predictions=lambda y, t, k: over_square(t, y),
        inputs=probability_inputs,
        weighs_labels=True,
    ),
    "hinge": Formula(
        loss=lambda y, t, k: np.maximum(0, 1 - (2 * t - 1) * y),
        d_predictions=lambda y, t, k: inside_margin(y, t, -(2 * t - 1)),
        d_labels=lambda y, t, k: inside_margin(y, t, -2 * y),
        d2_predictions=nowhere_curved,
        inputs=logit_inputs,
        kink=lambda y, t, k: np.abs(1 - (2 * t - 1) * y),
        loss_operands=lambda y, t, k: inside_margin(y, t, 1 + np.abs((2 * t - 1) * y)),
    ),
    "huber": Formula(
        loss=lambda y, t, k: huber(y - t, k.delta),
        d_predictions=lambda y, t, k: np.clip(y - t, -k.delta, k.delta),
        d_labels=lambda y, t, k: -np.clip(y - t, -k.delta, k.delta),
        d2_predictions=lambda y, t, k: huber_curvature(y - t, k.delta),
        inputs=real_inputs,
        kink=lambda y, t, k: np.abs(np.abs(y - t) - k.delta),
    ),
    "cosine_distance": Formula(
        loss=lambda y, t, k: 1 - times(t, y).sum(axis=-1, keepdims=True),
        d_predictions=lambda y, t, k: -t,
        d_labels=lambda y, t, k: -y,
        d2_predictions=nowhere_curved,
        inputs=real_inputs,
        per_pixel=True,
        loss_operands=lambda y, t, k: 1 + np.abs(times(t, y)).sum(axis=-1, keepdims=True),
    ),
    "log": Formula(
        loss=lambda y, t, k: (
            -times(t, np.log(y + k.epsilon)) - times(1 - t, np.log(1 - y + k.epsilon))
        ),
        d_predictions=lambda y, t, k: -over(t, y + k.epsilon) + over(1 - t, 1 - y + k.epsilon),
        d_labels=lambda y, t, k: np.log(1 - y + k.epsilon) - np.log(y + k.epsilon),
        d2_predictions=lambda y, t, k: (
            over_square(t, y + k.epsilon) + over_square(1 - t, 1 - y + k.epsilon)
        ),
        inputs=probability_inputs,
        loss_operands=lambda y, t, k: (
            np.abs(times(t, log_size(y + k.epsilon)))
            + np.abs(times(1 - t, log_size(1 - y + k.epsilon)))
        ),
        d_predictions_operands=lambda y, t, k: (
            np.abs(over(t, y + k.epsilon)) + np.abs(over(1 - t, 1 - y + k.epsilon))
        ),
        d2_predictions_operands=lambda y, t, k: (
            np.abs(over_square(t, y + k.epsilon)) + np.abs(over_square(1 - t, 1 - y + k.epsilon))
        ),
        d_labels_operands=lambda y, t, k: log_size(1 - y + k.epsilon) + log_size(y + k.epsilon),
    ),
    "kullback_leibler_divergence": Formula(
        loss=lambda y, t, k: times(t, np.log(t) - y),
        d_predictions=lambda y, t, k: -t,
        d_labels=lambda y, t, k: np.log(t) + 1 - y,
        d2_predictions=nowhere_curved,
        inputs=log_probability_inputs,
        loss_operands=lambda y, t, k: np.abs(times(t, np.abs(np.log(t)) + np.abs(y))),
        d_labels_operands=lambda y, t, k: np.abs(np.log(t)) + 1 + np.abs(y),
    ),
}
