"""How far the results of an engine may be away from the reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpsnn_loss._reference.calls import Call
from mpsnn_loss._reference.formulas import Array, is_first_top, log_softmax, softmax_and_rest


@dataclass(frozen=True)
class Tolerance:
    """The numbers of the contract for one type that an engine computes in."""

    compute: type[np.floating[Any]]
    element_ulp: float
    element_relative: float
    log_softmax_ulp: float
    log_softmax_absolute: float
    softmax_gradient: float  # relative to what `_softmax_gradient_bound` says
    sums: float  # relative to the sum of the magnitudes of the terms
    softmax_range: float  # logits further below the largest may count as -inf

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


FLOAT32 = Tolerance(np.float32, 4, 0.0, 8, 1e-7, 1e-6, 1e-6, 103)
FLOAT64 = Tolerance(np.float64, 0, 1e-14, 0, 1e-15, 1e-14, 1e-13, 724)
# Storage of 16 bits computes in float32; `error_ratios` allows for the one rounding at the end.
TOLERANCES = {"float16": FLOAT32, "bfloat16": FLOAT32, "float32": FLOAT32, "float64": FLOAT64}


def forward_bound(call: Call, dtype: str) -> Array:
    """The tolerance of each result of `call.forward()`."""
    tolerance = TOLERANCES[dtype]
    with np.errstate(all="ignore"):
        v = call.loss_weights
        scale = np.where(v == 0, 0.0, call.weight * v)
        weighted = np.where(v == 0, 0.0, scale * call.element_losses())
        if call.formula.per_pixel:  # each product is a term of the sum, and so is each 1
            return call.reduce(tolerance.sums * _operands(call, "loss", scale))
        if call.formula.couples_channels:
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
        if not call.formula.couples_channels:
            inherent = tolerance.element(_operands(call, f"d_{wrt}", scale))
        elif wrt == "labels":
            factor = scale * (1 - call.label_smoothing)
            inherent = _log_softmax_bound(call, tolerance, factor)
        else:
            bound = _softmax_gradient_bound(call, tolerance, scale)
            return tolerance.not_below_normal(bound, gradient)
        return _element_bound(call, tolerance, gradient, inherent)


def hessian_bound(call: Call, dtype: str, *, source_gradient: ArrayLike = 1.0) -> Array:
    """The tolerance of each result of `call.hessian()`."""
    tolerance = TOLERANCES[dtype]
    with np.errstate(all="ignore"):
        scale = call.gradient_scale(source_gradient)
        hessian = call.hessian(source_gradient=source_gradient)
        if call.formula.couples_channels:
            bound = _softmax_hessian_bound(call, tolerance, scale)
            return tolerance.not_below_normal(bound, hessian)
        inherent = tolerance.element(_operands(call, "d2_predictions", scale))
        return _element_bound(call, tolerance, hessian, inherent)


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


def _softmax_gradient_bound(call: Call, tolerance: Tolerance, scale: Array) -> Array:
    """Relative to p_j · sum of the other |a| + |a_j| · sum of the other p, and growing with the
    range of the row."""
    y, a = call.predictions, _pull_magnitudes(call, scale)
    p, rest = (magnitudes(part) for part in softmax_and_rest(y))
    others = np.where(is_first_top(y), 0.0, a).sum(axis=-1, keepdims=True)
    # Of the other channels only the largest may be most of the sum, and their 1 - p is large.
    others = np.where(is_first_top(y), others, a.sum(axis=-1, keepdims=True) - a)
    operands = p * np.maximum(others, 0.0) + a * rest
    counts_as_none = _counted_as_none(y, p, tolerance) * a.sum(axis=-1, keepdims=True)
    return np.asarray(_softmax_relative(y, tolerance) * operands + counts_as_none)


def _softmax_hessian_bound(call: Call, tolerance: Tolerance, scale: Array) -> Array:
    """Relative to p_j · (1 - p_j) · sum of |a|, and growing with the range of the row."""
    y, total = call.predictions, _pull_magnitudes(call, scale).sum(axis=-1, keepdims=True)
    p, rest = (magnitudes(part) for part in softmax_and_rest(y))
    lost = _counted_as_none(y, p, tolerance)
    lost_of_others = np.maximum(lost.sum(axis=-1, keepdims=True) - lost, 0.0)
    counts_as_none = (lost * rest + p * lost_of_others) * total
    return np.asarray(_softmax_relative(y, tolerance) * p * rest * total + counts_as_none)


def _pull_magnitudes(call: Call, scale: Array) -> Array:
    """|a| of each channel, where the parts of a smoothed label do not cancel."""
    s = call.label_smoothing if call.smooths else 0.0
    labels = np.abs(call.labels) * (1 - s) + np.abs(call.smoothed_labels - call.labels * (1 - s))
    return magnitudes(scale * labels)


def _softmax_relative(y: Array, tolerance: Tolerance) -> Array:
    spread = _below_top(y).max(axis=-1, keepdims=True, initial=0.0)
    grown = 1 + np.minimum(spread, tolerance.softmax_range + 1) / 8
    return np.asarray(tolerance.softmax_gradient * grown)


def _counted_as_none(y: Array, p: Array, tolerance: Tolerance) -> Array:
    """p where a channel is so far below the largest that it may count as 0, else 0."""
    return np.where(_below_top(y) > tolerance.softmax_range, p, 0.0)


def _below_top(y: Array) -> Array:
    top = y.max(axis=-1, keepdims=True, initial=-np.inf)
    return np.asarray(np.nan_to_num(top - y, nan=0.0, posinf=np.inf))


def _element_bound(call: Call, tolerance: Tolerance, value: Array, inherent: Array) -> Array:
    rounding = tolerance.element(value)
    is_product_with_log_softmax = call.formula.couples_channels
    bound = rounding + inherent if is_product_with_log_softmax else np.maximum(rounding, inherent)
    return tolerance.not_below_normal(bound, value)


def error_ratios(actual: ArrayLike, expected: ArrayLike, bound: ArrayLike) -> Array:
    """error / bound of each result; above 1 is too far away.

    The error is the distance to the exact or to the correctly rounded value; of a result of 16
    bits, which was rounded once more, the distance to the numbers that round to it. NaN and
    infinities agree only with themselves.
    """
    actual, expected = np.asarray(actual), np.asarray(expected, np.float64)
    with np.errstate(all="ignore"):
        value = actual.astype(np.float64)
        if actual.dtype.itemsize == 2:
            lower, upper = _numbers_that_round_to(actual)
            error = np.maximum(np.maximum(lower - expected, expected - upper), 0.0)
            agree = value == expected
        else:
            rounded = expected.astype(actual.dtype).astype(np.float64)
            error = np.minimum(np.abs(value - expected), np.abs(value - rounded))
            agree = value == rounded
        agree |= np.isnan(value) & np.isnan(expected)
        error = np.where(agree, 0.0, np.nan_to_num(error, nan=np.inf))
        return np.where(error == 0, 0.0, error / np.broadcast_to(bound, error.shape))


def _numbers_that_round_to(values: NDArray[Any]) -> tuple[Array, Array]:
    """The middles between each value and its neighbours, for any format of 16 bits.

    The bits of such numbers, as a sign and a magnitude, are in order like the numbers. Infinity
    stands where the next power of two would be if the exponents went on.
    """
    infinity = int(np.asarray(np.inf).astype(values.dtype).view(np.int16))

    def number(place: NDArray[np.int64]) -> Array:
        finite = np.minimum(np.abs(place), infinity - 1).astype(np.int16)
        largest, below = (
            float(np.asarray(bits, np.int16).view(values.dtype).astype(np.float64))
            for bits in (infinity - 1, infinity - 2)
        )
        beyond = np.abs(place) >= infinity
        magnitude = np.where(
            beyond, 2 * largest - below, finite.view(values.dtype).astype(np.float64)
        )
        return np.sign(place) * magnitude

    bits = values.view(np.int16).astype(np.int64)
    place = np.where(bits < 0, -(bits & 0x7FFF), bits)
    here = np.where(np.abs(place) > infinity, np.nan, number(place))
    lower, upper = (number(place - 1) + here) / 2, (number(place + 1) + here) / 2
    lower = np.where(place == -infinity, -np.inf, lower)
    return lower, np.where(place == infinity, np.inf, upper)
