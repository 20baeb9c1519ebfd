"""The numerical contract in NumPy float64: what every engine is measured against.

Arrays are [N, H, W, C]: images, rows, columns, feature channels. In the formulas y are predictions,
t labels (already smoothed where the loss smooths them) and k the call with its epsilon and delta.
The inputs of an engine are converted to float64, which is exact, so a float32 result is compared
with the true result for the very values the engine was given.

To add a loss, add a row to `LOSSES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
ElementFunction = Callable[[Array, Array, "Call"], Array]
Inputs = Callable[[np.random.Generator, "tuple[int, ...]"], "tuple[Array, Array]"]


# --- The parts of the formulas that do not fit on one line ---


def times(label_factor: Array, other: Array) -> Array:
    """A product whose label factor is exactly 0 is exactly 0, whatever the other factor."""
    return np.where(label_factor == 0, 0.0, label_factor * other)


def over(label_factor: Array, other: Array) -> Array:
    """The same for a quotient."""
    return np.where(label_factor == 0, 0.0, label_factor / other)


def softmax_and_log(y: Array) -> tuple[Array, Array]:
    """p and lp over the channels. A row with NaN or +inf, or with only -inf, is NaN."""
    if y.size == 0:
        return y, y
    top = y.max(axis=-1, keepdims=True)
    # What the rounding of y - top lost is kept, so that far-away channels stay accurate.
    shifted = y - top
    y_less_shifted = y - shifted
    lost = (y - (shifted + y_less_shifted)) + (y_less_shifted - top)
    lost = np.where(np.isfinite(lost), lost, 0.0)
    exponential = np.exp(shifted) * (1 + lost)
    # The first largest channel gives exactly 1; log1p of the others keeps a tiny loss accurate.
    is_first_top = np.arange(y.shape[-1]) == y.argmax(axis=-1)[..., None]
    others = np.where(is_first_top, 0.0, exponential).sum(axis=-1, keepdims=True)
    undefined = ~np.isfinite(top)
    p = np.where(undefined, np.nan, exponential / (1 + others))
    return p, np.where(undefined, np.nan, shifted + (lost - np.log1p(others)))


def softmax(y: Array) -> Array:
    return softmax_and_log(y)[0]


def log_softmax(y: Array) -> Array:
    return softmax_and_log(y)[1]


def sigmoid_minus_label(y: Array, t: Array) -> Array:
    """No overflow, and no cancellation at t = 0 and t = 1."""
    small = np.exp(-np.abs(y))
    return np.where(y < 0, (1 - t) * small - t, (1 - t) - t * small) / (1 + small)


def sigmoid_minus_label_operands(y: Array, t: Array, k: Call) -> Array:
    small = np.exp(-np.abs(y))
    rest, label = np.abs(1 - t), np.abs(t)
    terms = np.where(y < 0, rest * small + label, rest + label * small) / (1 + small)
    return terms + (label if k.label_smoothing > 0 else 0.0)  # smoothed labels are rounded


def inside_margin(y: Array, t: Array, value: Array) -> Array:
    """`value` where the hinge is positive, else 0; NaN stays NaN."""
    hinge = 1 - (2 * t - 1) * y
    return np.where(np.isnan(hinge), np.nan, np.where(hinge > 0, value, 0.0))


def huber(e: Array, delta: float) -> Array:
    beyond = delta * delta / 2 + delta * (np.abs(e) - delta)
    return np.where(np.abs(e) <= delta, e * e / 2, beyond)


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
    d_predictions: ElementFunction | None  # None: channels are coupled (`_softmax_gradient`)
    d_labels: ElementFunction
    inputs: Inputs
    # Labels are smoothed to t·(1 - s) + s·level(K).
    smoothing_level: Callable[[int], float] | None = None
    # Distance to the nearest point where the loss is not smooth.
    kink: ElementFunction | None = None
    # One loss per pixel, and only its sum is defined.
    per_pixel: bool = False
    # What a formula subtracts, in magnitude: its error is a few ULP of that, not of the difference.
    loss_operands: ElementFunction | None = None
    d_predictions_operands: ElementFunction | None = None
    d_labels_operands: ElementFunction | None = None


LOSSES: dict[str, Formula] = {
    "mean_absolute_error": Formula(
        loss=lambda y, t, k: np.abs(y - t),
        d_predictions=lambda y, t, k: np.sign(y - t),
        d_labels=lambda y, t, k: -np.sign(y - t),
        inputs=real_inputs,
        kink=lambda y, t, k: np.abs(y - t),
    ),
    "mean_squared_error": Formula(
        loss=lambda y, t, k: (y - t) ** 2,
        d_predictions=lambda y, t, k: 2 * (y - t),
        d_labels=lambda y, t, k: -2 * (y - t),
        inputs=real_inputs,
    ),
    "softmax_cross_entropy": Formula(
        loss=lambda y, t, k: -times(t, log_softmax(y)),
        d_predictions=None,
        d_labels=lambda y, t, k: -log_softmax(y),
        inputs=logit_inputs,
        smoothing_level=lambda classes: 1 / classes,
    ),
    "sigmoid_cross_entropy": Formula(
        loss=lambda y, t, k: np.maximum(y, 0) - times(t, y) + np.log1p(np.exp(-np.abs(y))),
        d_predictions=lambda y, t, k: sigmoid_minus_label(y, t),
        d_labels=lambda y, t, k: -y,
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
        inputs=probability_inputs,
    ),
    "hinge": Formula(
        loss=lambda y, t, k: np.maximum(0, 1 - (2 * t - 1) * y),
        d_predictions=lambda y, t, k: inside_margin(y, t, -(2 * t - 1)),
        d_labels=lambda y, t, k: inside_margin(y, t, -2 * y),
        inputs=logit_inputs,
        kink=lambda y, t, k: np.abs(1 - (2 * t - 1) * y),
        loss_operands=lambda y, t, k: inside_margin(y, t, 1 + np.abs((2 * t - 1) * y)),
    ),
    "huber": Formula(
        loss=lambda y, t, k: huber(y - t, k.delta),
        d_predictions=lambda y, t, k: np.clip(y - t, -k.delta, k.delta),
        d_labels=lambda y, t, k: -np.clip(y - t, -k.delta, k.delta),
        inputs=real_inputs,
        kink=lambda y, t, k: np.abs(np.abs(y - t) - k.delta),
    ),
    "cosine_distance": Formula(
        loss=lambda y, t, k: 1 - times(t, y).sum(axis=-1, keepdims=True),
        d_predictions=lambda y, t, k: -t,
        d_labels=lambda y, t, k: -y,
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
        inputs=probability_inputs,
        loss_operands=lambda y, t, k: (
            np.abs(times(t, log_size(y + k.epsilon)))
            + np.abs(times(1 - t, log_size(1 - y + k.epsilon)))
        ),
        d_predictions_operands=lambda y, t, k: (
            np.abs(over(t, y + k.epsilon)) + np.abs(over(1 - t, 1 - y + k.epsilon))
        ),
        d_labels_operands=lambda y, t, k: log_size(1 - y + k.epsilon) + log_size(y + k.epsilon),
    ),
    "kullback_leibler_divergence": Formula(
        loss=lambda y, t, k: times(t, np.log(t) - y),
        d_predictions=lambda y, t, k: -t,
        d_labels=lambda y, t, k: np.log(t) + 1 - y,
        inputs=log_probability_inputs,
        loss_operands=lambda y, t, k: np.abs(times(t, np.abs(np.log(t)) + np.abs(y))),
        d_labels_operands=lambda y, t, k: np.abs(np.log(t)) + 1 + np.abs(y),
    ),
}


# --- Weights, reduction and gradients ---


@dataclass(frozen=True, kw_only=True)
class Call:
    """The arrays and the properties of one call, and what an engine must answer."""

    predictions: Array
    labels: Array
    loss_type: str
    reduction: str = "mean"
    weights: ArrayLike | None = None  # any shape that broadcasts to the predictions
    weight: float = 1.0
    label_smoothing: float = 0.0
    number_of_classes: int | None = None  # None: the number of channels
    epsilon: float = 1e-7
    delta: float = 1.0
    reduce_across_batch: bool = True

    def __post_init__(self) -> None:
        if self.formula.per_pixel and self.reduction != "sum":
            raise ValueError(f"{self.loss_type} is only defined for the reduction sum")

    @property
    def formula(self) -> Formula:
        return LOSSES[self.loss_type]

    @property
    def across_batch(self) -> bool:
        return self.reduce_across_batch and self.reduction != "none"

    @property
    def smooths(self) -> bool:
        return self.formula.smoothing_level is not None and self.label_smoothing > 0

    @cached_property
    def smoothed_labels(self) -> Array:
        if self.formula.smoothing_level is None or not self.smooths:
            return self.labels
        level = self.formula.smoothing_level(self.number_of_classes or self.labels.shape[-1])
        return self.labels * (1 - self.label_smoothing) + self.label_smoothing * level

    @cached_property
    def element_weights(self) -> Array:
        """v, in the shape of the predictions."""
        v = np.asarray(1.0 if self.weights is None else self.weights, np.float64)
        return np.broadcast_to(v, self.predictions.shape)

    @cached_property
    def loss_weights(self) -> Array:
        """v, in the shape of the element losses."""
        return self.element_weights[..., :1] if self.formula.per_pixel else self.element_weights

    @cached_property
    def divisors(self) -> Array:
        """D of each image; where the sum runs over the batch, the sum of them for each."""
        n, height, width, channels = self.predictions.shape
        softmax_counts_pixels = self.loss_type == "softmax_cross_entropy"
        if self.reduction == "mean":
            per_pixel = min(channels, 1) if softmax_counts_pixels else channels
            divisors = np.full(n, float(height * width * per_pixel))
        elif self.reduction == "sum_by_non_zero_weights":
            counted = self.element_weights != 0
            counted = counted.any(axis=-1) if softmax_counts_pixels else counted
            divisors = counted.sum(axis=tuple(range(1, counted.ndim))).astype(np.float64)
        else:
            return np.ones(n)
        return np.full(n, divisors.sum()) if self.across_batch else divisors

    def forward(self) -> Array:
        """u like the predictions, or [N]; with reduce_across_batch, image 0 has it all."""
        with np.errstate(all="ignore"):
            loss, v = self.element_losses(), self.loss_weights
            weighted = np.where(v == 0, 0.0, self.weight * v * loss)
            return weighted if self.reduction == "none" else self.reduce(weighted)

    def gradient(self, *, source_gradient: ArrayLike = 1.0, wrt: str = "predictions") -> Array:
        """dL/dy or dL/dt. The source gradient is a scalar, [N], or not reduced: like y."""
        with np.errstate(all="ignore"):
            scale = self.gradient_scale(source_gradient)
            if wrt == "predictions" and self.formula.d_predictions is None:
                return self._softmax_gradient(scale)
            return np.where(self.element_weights == 0, 0.0, scale * self._derivative(wrt))

    def element_losses(self) -> Array:
        return self.formula.loss(self.predictions, self.smoothed_labels, self)

    def reduce(self, values: Array) -> Array:
        """The sum over each image, or over the batch, divided by D."""
        sums = np.array([exact_sum(image) for image in values])
        if self.across_batch:
            sums = np.full(len(values), exact_sum(values))
        of_nothing = np.nan if self.reduction == "mean" else 0.0
        results = np.where(self.divisors == 0, of_nothing, sums / self.divisors)
        is_constant = (np.arange(len(values)) > 0) & self.across_batch
        return np.where(is_constant, 0.0, results)

    def gradient_scale(self, source_gradient: ArrayLike) -> Array:
        """g·ω·v / D of each element."""
        g = np.asarray(source_gradient, np.float64)
        if g.ndim == 1:
            g = (g[:1] if self.across_batch else g)[:, None, None, None]
        v, divisors = self.element_weights, self.divisors[:, None, None, None]
        return np.where((v == 0) | (divisors == 0), 0.0, g * self.weight * v / divisors)

    def _derivative(self, wrt: str) -> Array:
        y, t = self.predictions, self.smoothed_labels
        if wrt == "predictions":
            return self.formula.d_predictions(y, t, self)  # type: ignore[misc]
        derivative = self.formula.d_labels(y, t, self)
        return (1 - self.label_smoothing) * derivative if self.smooths else derivative

    def _softmax_gradient(self, scale: Array) -> Array:
        """Every label of a pixel pulls at every channel: p_j · sum of a - a_j."""
        a = np.where(self.element_weights == 0, 0.0, scale * self.smoothed_labels)
        gradient = softmax(self.predictions) * a.sum(axis=-1, keepdims=True) - a
        ignored = (self.element_weights == 0).all(axis=-1, keepdims=True)
        return np.where(ignored, 0.0, gradient)


def exact_sum(values: Array) -> float:
    return math.fsum(values.flat) if np.isfinite(values).all() else float(values.sum())


def make_call(
    predictions: ArrayLike, labels: ArrayLike, loss_type: object, **properties: Any
) -> Call:
    """`loss_type` is a member of the enumeration or its lower-case name."""
    return Call(
        predictions=np.asarray(predictions, np.float64),
        labels=np.asarray(labels, np.float64),
        loss_type=str(getattr(loss_type, "name", loss_type)).lower(),
        **properties,
    )


def forward(
    predictions: ArrayLike, labels: ArrayLike, loss_type: object, **properties: Any
) -> Array:
    """The forward loss; the properties are the fields of `Call`."""
    return make_call(predictions, labels, loss_type, **properties).forward()


def gradient(
    predictions: ArrayLike,
    labels: ArrayLike,
    loss_type: object,
    *,
    source_gradient: ArrayLike = 1.0,
    wrt: str = "predictions",
    **properties: Any,
) -> Array:
    """The gradient with respect to the predictions or the labels."""
    call = make_call(predictions, labels, loss_type, **properties)
    return call.gradient(source_gradient=source_gradient, wrt=wrt)


# --- How far an engine may be away ---


@dataclass(frozen=True)
class Tolerance:
    """The numbers of the contract for one type that an engine computes in."""

    compute: type[np.floating[Any]]
    element_ulp: float
    element_relative: float
    log_softmax_ulp: float
    log_softmax_absolute: float
    softmax_gradient: float  # relative to max(p_j · sum of |a|, |a_j|)
    sums: float  # relative to the sum of the magnitudes of the terms

    def element(self, value: Array) -> Array:
        return self._bound(value, self.element_ulp)

    def log_softmax(self, value: Array) -> Array:
        return np.maximum(self.log_softmax_absolute, self._bound(value, self.log_softmax_ulp))

    def _bound(self, value: Array, ulp: float) -> Array:
        magnitude = np.minimum(magnitudes(value), float(np.finfo(self.compute).max))
        spacing = np.spacing(magnitude.astype(self.compute)).astype(np.float64)
        bound = np.maximum(ulp * spacing, self.element_relative * magnitude)
        return np.where(magnitude == 0, 0.0, bound)

    def not_below_normal(self, bound: Array, value: Array) -> Array:
        """No relative accuracy is promised for a result too small to be a normal number."""
        tiny = float(np.finfo(self.compute).tiny)
        subnormal = (value != 0) & (np.abs(value) < tiny)
        return np.where(subnormal, np.maximum(bound, tiny), bound)


FLOAT32 = Tolerance(np.float32, 4, 0.0, 8, 1e-7, 1e-6, 1e-6)
FLOAT64 = Tolerance(np.float64, 0, 1e-14, 0, 1e-15, 1e-14, 1e-13)
# float16 storage computes in float32; `assert_within` allows for the one rounding at the end.
TOLERANCES = {"float16": FLOAT32, "float32": FLOAT32, "float64": FLOAT64}


def forward_bound(call: Call, dtype: str) -> Array:
    """The tolerance of each result of `call.forward()`."""
    tolerance = TOLERANCES[dtype]
    with np.errstate(all="ignore"):
        v = call.loss_weights
        scale = np.where(v == 0, 0.0, call.weight * v)
        weighted = np.where(v == 0, 0.0, scale * call.element_losses())
        if call.formula.per_pixel:  # each product is a term of the sum, and so is each 1
            return call.reduce(tolerance.sums * _operands(call, "loss", scale))
        if call.loss_type == "softmax_cross_entropy":
            inherent = _log_softmax_bound(call, tolerance, scale * call.smoothed_labels)
        else:
            inherent = tolerance.element(_operands(call, "loss", scale))
        if call.reduction != "none":
            return call.reduce(tolerance.sums * magnitudes(weighted) + inherent)
        return _element_bound(call, tolerance, weighted, inherent)


def gradient_bound(
    call: Call, dtype: str, *, source_gradient: ArrayLike = 1.0, wrt: str = "predictions"
) -> Array:
    """The tolerance of each result of `call.gradient()`."""
    tolerance = TOLERANCES[dtype]
    with np.errstate(all="ignore"):
        scale = call.gradient_scale(source_gradient)
        gradient = call.gradient(source_gradient=source_gradient, wrt=wrt)
        if call.loss_type != "softmax_cross_entropy":
            inherent = tolerance.element(_operands(call, f"d_{wrt}", scale))
        elif wrt == "labels":
            factor = scale * (1 - call.label_smoothing)
            inherent = _log_softmax_bound(call, tolerance, factor)
        else:
            a = magnitudes(scale * call.smoothed_labels)
            pulls = magnitudes(softmax(call.predictions)) * a.sum(axis=-1, keepdims=True)
            bound = tolerance.softmax_gradient * np.maximum(pulls, a)
            return tolerance.not_below_normal(bound, gradient)
        return _element_bound(call, tolerance, gradient, inherent)


def magnitudes(values: Array) -> Array:
    """|values|, and 0 for what has no magnitude: NaN and infinities must be met exactly."""
    return np.where(np.isfinite(values), np.abs(values), 0.0)


def _operands(call: Call, result: str, scale: Array) -> Array:
    operands = getattr(call.formula, f"{result}_operands")
    if operands is None:
        return np.zeros(scale.shape)
    return magnitudes(scale * operands(call.predictions, call.smoothed_labels, call))


def _log_softmax_bound(call: Call, tolerance: Tolerance, factor: Array) -> Array:
    return magnitudes(factor) * tolerance.log_softmax(log_softmax(call.predictions))


def _element_bound(call: Call, tolerance: Tolerance, value: Array, inherent: Array) -> Array:
    rounding = tolerance.element(value)
    is_product_with_log_softmax = call.loss_type == "softmax_cross_entropy"
    bound = rounding + inherent if is_product_with_log_softmax else np.maximum(rounding, inherent)
    return tolerance.not_below_normal(bound, value)


def assert_within(
    actual: ArrayLike, expected: ArrayLike, bound: ArrayLike, what: str = ""
) -> float:
    """Fail where `actual` is further than `bound` from `expected`; return the worst error / bound.

    The error is the distance to the exact or to the correctly rounded value; of a float16 result,
    the distance to the numbers that round to it. NaN and infinities agree only with themselves.
    """
    actual, expected = np.asarray(actual), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, not {expected.shape}"
    with np.errstate(all="ignore"):
        value, rounded = actual.astype(np.float64), expected.astype(actual.dtype).astype(np.float64)
        if actual.dtype == np.float16:
            lower, upper = _numbers_that_round_to(actual)
            error = np.maximum(np.maximum(lower - expected, expected - upper), 0.0)
        else:
            error = np.minimum(np.abs(value - expected), np.abs(value - rounded))
        agree = (value == rounded) | (np.isnan(value) & np.isnan(expected))
        error = np.where(agree, 0.0, np.nan_to_num(error, nan=np.inf))
        ratio = np.where(error == 0, 0.0, error / np.broadcast_to(bound, error.shape))
    worst = float(ratio.max(initial=0.0))
    if worst > 1:
        at = tuple(int(i) for i in np.unravel_index(ratio.argmax(), ratio.shape))
        raise AssertionError(
            f"{what}: {actual.dtype} result {float(value[at])!r} at {at}, expected "
            f"{float(expected[at])!r}: {worst:.3g} of the tolerance, and {(ratio > 1).sum()} of "
            f"{ratio.size} results are outside"
        )
    return worst


def _numbers_that_round_to(values: NDArray[np.float16]) -> tuple[Array, Array]:
    edges = []
    for direction in (np.float16(-np.inf), np.float16(np.inf)):
        neighbour = np.nextafter(values, direction).astype(np.float64)
        # Infinity stands where 2^16 would be if the exponents went on.
        middle = (np.clip(neighbour, -65536, 65536) + np.clip(values, -65536.0, 65536.0)) / 2
        edges.append(np.where(values == direction, float(direction), middle))
    return edges[0], edges[1]
