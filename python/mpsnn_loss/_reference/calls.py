"""A call of a loss, and what an engine must answer: weights, reduction, gradients, Hessian."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpsnn_loss._reference.formulas import (
    LOSSES,
    Array,
    Formula,
    is_first_top,
    softmax_and_rest,
    times,
)

WITHOUT_DIVISOR = ("none", "sum")


@dataclass(frozen=True, kw_only=True)
class Call:
    """The arrays and the properties of one call, and what an engine must answer."""

    predictions: Array
    labels: Array
    loss_type: str
    reduction: str = "mean"
    # The three multiply each other.
    weights: ArrayLike | None = None  # any shape that broadcasts to the predictions
    sample_weight: ArrayLike | None = None  # [N] or [N, H, W]
    class_weight: ArrayLike | None = None  # [C]
    weight: float = 1.0
    label_smoothing: float = 0.0
    number_of_classes: int | None = None  # None: the number of channels
    epsilon: float = 1e-7
    delta: float = 1.0
    reduce_across_batch: bool = True
    divisor: float | None = None  # in place of D

    def __post_init__(self) -> None:
        if self.formula.per_pixel and self.reduction != "sum":
            raise ValueError(f"{self.loss_type} is only defined for the reduction sum")
        if self.divisor is not None:
            self._require_a_divisor()
            if not math.isfinite(self.divisor):
                raise ValueError(f"divisor must be finite, got {self.divisor}")

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
        classes = self.number_of_classes or max(1, self.labels.shape[-1])
        level = self.formula.smoothing_level(classes)
        return self.labels * (1 - self.label_smoothing) + self.label_smoothing * level

    @cached_property
    def element_weights(self) -> Array:
        """v, in the shape of the predictions."""
        factors = [np.broadcast_to(f, self.predictions.shape) for f in self._weight_factors()]
        zero = np.logical_or.reduce([factor == 0 for factor in factors])
        with np.errstate(all="ignore"):
            v = np.multiply.reduce(factors)
            # No product becomes 0 unless a factor is, and one that is wins over NaN and infinity.
            v = np.where(v == 0, np.copysign(np.finfo(np.float64).smallest_subnormal, v), v)
        return np.where(zero, 0.0, v)

    def _weight_factors(self) -> list[Array]:
        given = [self.weights, self.sample_weight, self.class_weight]
        v, sample, classes = (np.asarray(1.0 if w is None else w, np.float64) for w in given)
        return [v, sample.reshape(*sample.shape, *(1,) * (4 - sample.ndim)), classes]

    @cached_property
    def loss_weights(self) -> Array:
        """v, in the shape of the element losses."""
        return self.element_weights[..., :1] if self.formula.per_pixel else self.element_weights

    @cached_property
    def divisors(self) -> Array:
        """D of each image; where the sum runs over the batch, the sum of them for each."""
        n = len(self.predictions)
        if self.divisor is not None:
            return np.full(n, float(self.divisor))
        if self.reduction in WITHOUT_DIVISOR:
            return np.ones(n)
        if self.across_batch:
            return np.full(n, self.reduction_divisor())
        return np.array([exact_sum(image) for image in self._counted()])

    def reduction_divisor(self) -> float:
        """D of the whole batch, whatever `divisor` is: its share in that of a larger batch."""
        self._require_a_divisor()
        return exact_sum(self._counted())

    def _require_a_divisor(self) -> None:
        if self.reduction in WITHOUT_DIVISOR:
            raise ValueError(f"the reduction {self.reduction} has no divisor")

    def _counted(self) -> Array:
        """What D is the sum of: elements, or pixels where channels are coupled."""
        v = self.element_weights
        if self.reduction == "mean_by_weights":
            if not self.formula.weighs_labels:
                return v
            with np.errstate(all="ignore"):  # the labels as given, before smoothing
                return np.where(v == 0, 0.0, times(self.labels, v))
        counted = np.ones(v.shape, bool) if self.reduction == "mean" else v != 0
        if self.formula.couples_channels:
            counted = counted.any(axis=-1)
        return counted.astype(np.float64)

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
            if wrt == "labels":
                self._require_a_divisor_without_labels()
            if wrt == "predictions" and self.formula.d_predictions is None:
                return self._softmax_gradient(scale)
            return np.where(self.counts_for_nothing, 0.0, scale * self._derivative(wrt))

    def hessian(self, *, source_gradient: ArrayLike = 1.0) -> Array:
        """The diagonal of d²L/dy². The source gradient is as for the gradient."""
        with np.errstate(all="ignore"):
            scale, curvature = self.gradient_scale(source_gradient), self.formula.d2_predictions
            if curvature is None:
                return self._softmax_hessian(scale)
            second = curvature(self.predictions, self.smoothed_labels, self)
            return np.where(self.counts_for_nothing, 0.0, scale * second)

    def element_losses(self) -> Array:
        return self.formula.loss(self.predictions, self.smoothed_labels, self)

    def reduce(self, values: Array) -> Array:
        """The sum over each image, or over the batch, divided by D."""
        sums = np.array([exact_sum(image) for image in values])
        if self.across_batch:
            sums = np.full(len(values), exact_sum(values))
        of_nothing = np.nan if self.reduction == "mean" and self.divisor is None else 0.0
        results = np.where(self.divisors == 0, of_nothing, sums / self.divisors)
        is_constant = (np.arange(len(values)) > 0) & self.across_batch
        return np.where(is_constant, 0.0, results)

    def gradient_scale(self, source_gradient: ArrayLike) -> Array:
        """g·ω·v / D of each element."""
        g = np.asarray(source_gradient, np.float64)
        if g.ndim == 1:
            g = (g[:1] if self.across_batch else g)[:, None, None, None]
        scale = g * self.weight * self.element_weights / self.divisors[:, None, None, None]
        return np.where(self.counts_for_nothing, 0.0, scale)

    @property
    def counts_for_nothing(self) -> NDArray[np.bool_]:
        """Elements whose weight or whose divisor is 0, whatever else they hold."""
        return np.asarray((self.element_weights == 0) | (self.divisors == 0)[:, None, None, None])

    def _require_a_divisor_without_labels(self) -> None:
        by_labels = self.reduction == "mean_by_weights" and self.formula.weighs_labels
        if by_labels and self.divisor is None:
            raise ValueError("mean_by_weights has a divisor that depends on the labels")

    def _derivative(self, wrt: str) -> Array:
        y, t = self.predictions, self.smoothed_labels
        if wrt == "predictions":
            return self.formula.d_predictions(y, t, self)  # type: ignore[misc]
        derivative = self.formula.d_labels(y, t, self)
        return (1 - self.label_smoothing) * derivative if self.smooths else derivative

    def _softmax_gradient(self, scale: Array) -> Array:
        """Every label of a pixel pulls at every channel: p_j · sum of a - a_j."""
        a = self._pulls(scale)
        p, rest = softmax_and_rest(self.predictions)
        gradient = p * a.sum(axis=-1, keepdims=True) - a
        # The first largest channel may have p near 1, where that cancels.
        top = is_first_top(self.predictions)
        at_top = p * np.where(top, 0.0, a).sum(axis=-1, keepdims=True) - a * rest
        gradient = np.where(top & np.isfinite(at_top), at_top, gradient)
        return np.where(self._pixel_counts_for_nothing(), 0.0, gradient)

    def _softmax_hessian(self, scale: Array) -> Array:
        """p_j · (1 - p_j) · sum of a."""
        p, rest = softmax_and_rest(self.predictions)
        hessian = p * rest * self._pulls(scale).sum(axis=-1, keepdims=True)
        return np.where(self._pixel_counts_for_nothing(), 0.0, hessian)

    def _pulls(self, scale: Array) -> Array:
        """a = g·ω·v·t' / D of each channel."""
        return np.where(self.counts_for_nothing, 0.0, scale * self.smoothed_labels)

    def _pixel_counts_for_nothing(self) -> NDArray[np.bool_]:
        return np.asarray(self.counts_for_nothing.all(axis=-1, keepdims=True))


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


def hessian(
    predictions: ArrayLike,
    labels: ArrayLike,
    loss_type: object,
    *,
    source_gradient: ArrayLike = 1.0,
    **properties: Any,
) -> Array:
    """The diagonal of the Hessian with respect to the predictions."""
    call = make_call(predictions, labels, loss_type, **properties)
    return call.hessian(source_gradient=source_gradient)
