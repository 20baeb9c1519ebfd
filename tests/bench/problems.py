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
}
SOFTMAX_ONLY = ("65536x128", "16384x1024")
ELEMENTWISE_ONLY = ("1048576x64",)

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
    """Float32 predictions [rows, classes] and labels, and the gradient of their mean loss."""

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
        rows, classes = math.prod(full[:-1]), full[-1]
        predictions, labels = _bench.inputs(self.loss_type, (rows, classes))
        if self.loss_type in LOGIT_LOSSES:
            predictions *= np.float32(self.deviation)
        if self.class_indices:
            return predictions, np.random.default_rng(1).integers(classes, size=rows)
        if self.loss_type == SOFTMAX:
            labels *= np.float32(3 / classes)  # their sums are near 1.5
        return predictions, labels

    @property
    def predictions(self) -> Any:
        return self.arrays[0]

    @property
    def labels(self) -> Any:
        """[rows, classes], or class indices [rows]."""
        return self.arrays[1]

    @property
    def reduction(self) -> str:
        return _bench.reduction(self.loss_type)

    @property
    def scale(self) -> float:
        """What the mean divides by, inverted; 1 for a sum."""
        if self.reduction == "sum":
            return 1.0
        rows, classes = self.predictions.shape
        return 1 / (rows if self.loss_type == SOFTMAX else rows * classes)

    def bytes_touched(self, work: str) -> int:
        """Of the arrays that the work has to read or write, each once."""
        gradient_needs_labels_only = ("cosine_distance", "kullback_leibler_divergence")
        without_predictions = work == "gradient" and self.loss_type in gradient_needs_labels_only
        read = self.labels.nbytes + (0 if without_predictions else self.predictions.nbytes)
        return read + (0 if work == "loss" else self.predictions.nbytes)

    # --- What is correct ---

    @cached_property
    def checked_rows(self) -> Any:
        rows, classes = self.predictions.shape
        count = min(rows, max(1, CHECKED_ELEMENTS // classes))
        return np.sort(np.random.default_rng(2).choice(rows, count, replace=False))

    def call(self, rows: Any) -> reference.Call:
        """Some rows in float64; their gradient is that of the whole, their loss a part of it."""
        labels = self.labels[rows]
        if self.class_indices:
            labels = (np.arange(self.predictions.shape[1]) == labels[:, None]).astype(np.float64)
        return reference.make_call(
            self.predictions[rows][:, None, None, :],
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
        rows, classes = self.predictions.shape
        step = max(1, CHECKED_ELEMENTS // classes)
        parts = (self.call(slice(start, start + step)) for start in range(0, rows, step))
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
            actual = np.asarray(gradient).reshape(self.predictions.shape)[self.checked_rows]
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
            if shape in (ELEMENTWISE_ONLY if is_softmax else SOFTMAX_ONLY):
                continue
            has_logits = is_softmax or loss in LOGIT_LOSSES
            for deviation in deviations if has_logits else [1.0]:
                yield Problem(loss, shape, deviation)
