"""A call of a loss, and what an engine must answer: weights, reduction and gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mpsnn_loss._reference.formulas import LOSSES, Array, Formula, is_first_top, softmax_and_rest


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
        classes = self.number_of_classes or max(1, self.labels.shape[-1])
        level = self.formula.smoothing_level(classes)
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
        counts_pixels = self.formula.couples_channels
        if self.reduction == "mean":
            per_pixel = min(channels, 1) if counts_pixels else channels
            divisors = np.full(n, float(height * width * per_pixel))
        elif self.reduction == "sum_by_non_zero_weights":
            counted = self.element_weights != 0
            counted = counted.any(axis=-1) if counts_pixels else counted
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
        p, rest = softmax_and_rest(self.predictions)
        gradient = p * a.sum(axis=-1, keepdims=True) - a
        # The first largest channel may have p near 1, where that cancels.
        top = is_first_top(self.predictions)
        at_top = p * np.where(top, 0.0, a).sum(axis=-1, keepdims=True) - a * rest
        gradient = np.where(top & np.isfinite(at_top), at_top, gradient)
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
