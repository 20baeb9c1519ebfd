"""What is measured: losses, shapes and data, and what a correct result is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from mpsnn_loss import _bench

from tests.reference import losses as reference

SOFTMAX = "softmax_cross_entropy"
LOGIT_LOSSES = (SOFTMAX, "sigmoid_cross_entropy")
INDICES = f"{SOFTMAX} (indices)"
LOSSES = (*_bench.LOSSES, INDICES)

SHAPES: dict[str, tuple[int, ...]] = {
    "1x10": (1, 10),
    "64x10": (64, 10),
    "4096x10": (4096, 10),
    "256x1000": (256, 1000),
    "8x256x256x3": (8, 256, 256, 3),
    "4x256x256x21": (4, 256, 256, 21),
    "256x50257": (256, 50257),
    "65536x128": (65536, 128),
    "16384x1024": (16384, 1024),
    "1048576x64": (1048576, 64),
    "8x21x512x512": (8, 21, 512, 512),
    "16x3x512x512": (16, 3, 512, 512),
    "4x150x128x128": (4, 150, 128, 128),
}
CHANNELS_FIRST = ("8x21x512x512", "16x3x512x512", "4x150x128x128")  # else they are last
VARIED = ("4096x10", "4x256x256x21", *CHANNELS_FIRST)  # Hessian, weights and more
SOFTMAX_ONLY = ("65536x128", "16384x1024", *CHANNELS_FIRST)

WORKS = ("gradient", "loss and gradient")
DESTINATIONS = ("out=", "fresh")
CHECKED_ELEMENTS = 1 << 19
TOLERANCE = 1e-4  # of the largest element: catches a wrong formula, says nothing of accuracy
SMALL_LOSS = 1e-2  # a mean loss below this is compared absolutely


@dataclass(frozen=True)
class Candidate:
    """One way to do the work on the data of a problem."""

    name: str
    work: str  # "loss", "gradient" or "loss and gradient"; "triad" for the limit of the memory
    destination: str  # "out=": into an array that exists; "fresh": into a new one
    call: Callable[[], Any]  # returns what it computed, the gradient last
    factor: float = 1.0  # the result is the gradient times this: not all divide by the mean's count


@dataclass(frozen=True)
class Problem:
    """Float32 predictions and labels, and the gradient of their mean loss.

    Predictions are [rows, classes], or [images, classes, pixels] where channels come first: classes
    are on axis 1 in either case.
    """

    loss: str
    shape: str
    deviation: float = 1.0  # of normal logits

    @property
    def loss_type(self) -> str:
        return SOFTMAX if self.class_indices else self.loss

    @property
    def class_indices(self) -> bool:
        return self.loss == INDICES

    @property
    def data(self) -> str:
        return f"{self.deviation:g} x normal" if self.loss_type in LOGIT_LOSSES else ""

    @cached_property
    def arrays(self) -> tuple[Any, Any]:
        full = SHAPES[self.shape]
        shape = (math.prod(full[:-1]), full[-1])
        if self.channels_first:
            shape = (full[0], full[1], math.prod(full[2:]))
        classes, indexed = shape[1], (shape[0], *shape[2:])
        predictions, labels = _bench.inputs(self.loss_type, shape)
        if self.loss_type in LOGIT_LOSSES:
            predictions *= np.float32(self.deviation)
        if self.class_indices:
            return predictions, np.random.default_rng(1).integers(classes, size=indexed)
        if self.loss_type == SOFTMAX:
            labels *= np.float32(3 / classes)  # their sums are near 1.5
        return predictions, labels

    @property
    def predictions(self) -> Any:
        return self.arrays[0]

    @property
    def labels(self) -> Any:
        """Like predictions, or class indices, which have no axis of classes."""
        return self.arrays[1]

    @property
    def channels_first(self) -> bool:
        return self.shape in CHANNELS_FIRST

    @property
    def rows(self) -> int:
        return int(self.predictions.size // self.predictions.shape[1])

    @property
    def reduction(self) -> str:
        return _bench.reduction(self.loss_type)

    @property
    def scale(self) -> float:
        """What the mean divides by, inverted; 1 for a sum."""
        if self.reduction == "sum":
            return 1.0
        return 1 / (self.rows if self.loss_type == SOFTMAX else self.predictions.size)

    def bytes_touched(self, work: str) -> int:
        """Of the arrays that the work has to read or write, each once."""
        gradient_needs_labels_only = ("cosine_distance", "kullback_leibler_divergence")
        without_predictions = work == "gradient" and self.loss_type in gradient_needs_labels_only
        read = self.labels.nbytes + (0 if without_predictions else self.predictions.nbytes)
        return read + (0 if work == "loss" else self.predictions.nbytes)

    # --- What is correct ---

    @cached_property
    def checked_rows(self) -> Any:
        count = min(self.rows, max(1, CHECKED_ELEMENTS // self.predictions.shape[1]))
        return np.sort(np.random.default_rng(2).choice(self.rows, count, replace=False))

    @staticmethod
    def rows_of(array: Any, rows: Any) -> Any:
        """Some rows of an array like predictions, as [rows, classes]."""
        if array.ndim == 2:
            return array[rows]
        images, pixels = np.divmod(rows, array.shape[2])
        return array[images, :, pixels]

    def call(self, rows: Any) -> reference.Call:
        """Some rows in float64; their gradient is that of the whole, their loss a part of it."""
        if self.class_indices:
            labels = self.labels.ravel()[rows]
            labels = (np.arange(self.predictions.shape[1]) == labels[:, None]).astype(np.float64)
        else:
            labels = self.rows_of(self.labels, rows)
        return reference.make_call(
            self.rows_of(self.predictions, rows)[:, None, None, :],
            labels[:, None, None, :],
            self.loss_type,
            reduction="sum",
            weight=self.scale,
        )

    @cached_property
    def expected_gradient(self) -> Any:
        return self.call(self.checked_rows).gradient().reshape(len(self.checked_rows), -1)

    @cached_property
    def expected_loss(self) -> float:
        step = max(1, CHECKED_ELEMENTS // self.predictions.shape[1])
        starts = range(0, self.rows, step)
        parts = (self.call(np.arange(i, min(i + step, self.rows))) for i in starts)
        with np.errstate(all="ignore"):
            return self.scale * math.fsum(float(part.element_losses().sum()) for part in parts)

    def complaint(self, candidate: Candidate) -> str:
        """Why the result of a candidate is wrong, or nothing."""
        result = candidate.call()
        loss, gradient = result if candidate.work == "loss and gradient" else (result, result)
        if candidate.work in ("loss", "loss and gradient"):
            difference = abs(float(loss) - self.expected_loss)
            if not difference <= TOLERANCE * max(abs(self.expected_loss), SMALL_LOSS):
                return f"its loss is {float(loss)!r}, not {self.expected_loss!r}"
        if candidate.work in WORKS:
            gradients = np.asarray(gradient).reshape(self.predictions.shape)
            actual = self.rows_of(gradients, self.checked_rows)
            error = np.abs(actual / candidate.factor - self.expected_gradient).max()
            largest = np.abs(self.expected_gradient).max()
            if self.loss_type == SOFTMAX:  # p - t is as inexact as t, however small it is
                largest = max(
                    largest, self.scale * np.abs(self.call(self.checked_rows).labels).max()
                )
            if not error <= TOLERANCE * largest:
                return f"its gradient is off by {error / largest:.1e} of the largest element"
        return ""


def problems(losses: list[str], shapes: list[str], deviations: list[float]) -> Iterator[Problem]:
    for loss in losses:
        for shape in shapes:
            is_softmax = loss in (SOFTMAX, INDICES)
            if not is_softmax and shape in SOFTMAX_ONLY:
                continue
            has_logits = is_softmax or loss in LOGIT_LOSSES
            for deviation in deviations if has_logits else [1.0]:
                yield Problem(loss, shape, deviation)
