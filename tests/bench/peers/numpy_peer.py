"""Closed forms in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from tests.bench.problems import DESTINATIONS, INDICES, Candidate, Problem

EPSILON = np.float32(1e-7)
Gradient = Callable[..., Any]  # (y, t, scale, out): out is written, or made where it is None


def mean_absolute_error(y, t, scale, out):
    out = np.subtract(y, t, out=out)
    np.sign(out, out=out)
    return np.multiply(out, scale, out=out)


def mean_squared_error(y, t, scale, out):
    out = np.subtract(y, t, out=out)
    return np.multiply(out, 2 * scale, out=out)


def softmax(y, out):
    out = np.subtract(y, y.max(axis=1, keepdims=True), out=out)
    np.exp(out, out=out)
    return out, out.sum(axis=1, keepdims=True)


def softmax_cross_entropy(y, t, scale, out):
    out, total = softmax(y, out)
    np.multiply(out, t.sum(axis=1, keepdims=True) * scale / total, out=out)
    return np.subtract(out, t * scale, out=out)


def softmax_of_indices(y, t, scale, out):
    out, total = softmax(y, out)
    np.multiply(out, scale / total, out=out)
    classes = t[:, None]
    np.put_along_axis(out, classes, np.take_along_axis(out, classes, 1) - scale, 1)
    return out


def sigmoid_cross_entropy(y, t, scale, out):
    out = np.negative(y, out=out)
    np.exp(out, out=out)
    np.add(out, np.float32(1), out=out)
    np.reciprocal(out, out=out)
    np.subtract(out, t, out=out)
    return np.multiply(out, scale, out=out)


def categorical_cross_entropy(y, t, scale, out):
    out = np.divide(t, y, out=out)
    return np.multiply(out, -scale, out=out)


def hinge(y, t, scale, out):
    out = np.multiply(t, -2 * scale, out=out)
    np.add(out, scale, out=out)  # -m times the scale
    return np.multiply(out, out * y > -scale, out=out)


def huber(y, t, scale, out):
    out = np.subtract(y, t, out=out)
    np.clip(out, np.float32(-1), np.float32(1), out=out)
    return np.multiply(out, scale, out=out)


def minus_labels(y, t, scale, out):
    return np.multiply(t, -scale, out=out)


def log(y, t, scale, out):
    out = np.subtract(np.float32(1), t, out=out)
    np.divide(out, 1 + EPSILON - y, out=out)
    np.subtract(out, t / (y + EPSILON), out=out)
    return np.multiply(out, scale, out=out)


def log_softmax(y):
    shifted = y - y.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def huber_loss(y, t):
    e = np.abs(y - t)
    inside = np.minimum(e, np.float32(1))
    return (inside * (e - np.float32(0.5) * inside)).mean()


# The mean loss, and its gradient.
FORMULAS: dict[str, tuple[Callable[[Any, Any], Any], Gradient]] = {
    "mean_absolute_error": (lambda y, t: np.abs(y - t).mean(), mean_absolute_error),
    "mean_squared_error": (lambda y, t: np.square(y - t).mean(), mean_squared_error),
    "softmax_cross_entropy": (
        lambda y, t: -(t * log_softmax(y)).sum() / (y.size // y.shape[1]),
        softmax_cross_entropy,
    ),
    INDICES: (
        lambda y, t: -np.take_along_axis(log_softmax(y), t[:, None], 1).mean(),
        softmax_of_indices,
    ),
    "sigmoid_cross_entropy": (
        lambda y, t: (np.maximum(y, 0) - y * t + np.log1p(np.exp(-np.abs(y)))).mean(),
        sigmoid_cross_entropy,
    ),
    "categorical_cross_entropy": (
        lambda y, t: -(t * np.log(y)).mean(),
        categorical_cross_entropy,
    ),
    "hinge": (lambda y, t: np.maximum(1 - (2 * t - 1) * y, 0).mean(), hinge),
    "huber": (huber_loss, huber),
    "cosine_distance": (lambda y, t: len(y) - (y * t).sum(), minus_labels),
    "log": (
        lambda y, t: -(t * np.log(y + EPSILON) + (1 - t) * np.log(1 - y + EPSILON)).mean(),
        log,
    ),
    "kullback_leibler_divergence": (lambda y, t: (t * (np.log(t) - y)).mean(), minus_labels),
}


def candidates(problem: Problem, threads: int) -> Iterator[Candidate]:
    loss, gradient = FORMULAS[problem.loss]
    y, t, scale = problem.predictions, problem.labels, np.float32(problem.scale)
    for destination in DESTINATIONS:
        out = np.empty_like(y) if destination == "out=" else None

        def both(out: Any = out) -> Any:
            return loss(y, t), gradient(y, t, scale, out)

        yield Candidate("NumPy", "gradient", destination, partial(gradient, y, t, scale, out))
        yield Candidate("NumPy", "loss and gradient", destination, both)
