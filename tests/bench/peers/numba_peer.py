"""Loops compiled by numba, with and without its threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numba
import numpy as np
from numba import prange

from tests.bench.problems import INDICES, Candidate, Problem

ONE, TWO, HALF, EPSILON = map(np.float32, (1, 2, 0.5, 1e-7))
ZERO = np.float32(0)
# Fast-math, but for infinities: exp(-y) of a large logit is one, and its reciprocal is right.
OPTIONS = {"fastmath": {"nsz", "arcp", "contract", "afn", "reassoc"}, "error_model": "numpy"}
inline = numba.njit(**OPTIONS, inline="always")


@inline
def huber(y, t):
    e = abs(y - t)
    inside = min(e, ONE)
    return inside * (e - HALF * inside)


@inline
def hinge_gradient(y, t):
    m = TWO * t - ONE
    return -m if m * y < ONE else ZERO


# The loss of an element and its derivative.
ELEMENTS: dict[str, tuple[Any, Any]] = {
    "mean_absolute_error": (
        inline(lambda y, t: abs(y - t)),
        inline(lambda y, t: np.float32(y > t) - np.float32(y < t)),
    ),
    "mean_squared_error": (
        inline(lambda y, t: (y - t) * (y - t)),
        inline(lambda y, t: TWO * (y - t)),
    ),
    "sigmoid_cross_entropy": (
        inline(lambda y, t: max(y, ZERO) - y * t + np.log1p(np.exp(-abs(y)))),
        inline(lambda y, t: ONE / (ONE + np.exp(-y)) - t),
    ),
    "categorical_cross_entropy": (
        inline(lambda y, t: -t * np.log(y)),
        inline(lambda y, t: -t / y),
    ),
    "hinge": (inline(lambda y, t: max(ZERO, ONE - (TWO * t - ONE) * y)), hinge_gradient),
    "huber": (huber, inline(lambda y, t: min(max(y - t, -ONE), ONE))),
    "cosine_distance": (inline(lambda y, t: -y * t), inline(lambda y, t: -t)),
    "log": (
        inline(lambda y, t: -t * np.log(y + EPSILON) - (ONE - t) * np.log(ONE - y + EPSILON)),
        inline(lambda y, t: (ONE - t) / (ONE - y + EPSILON) - t / (y + EPSILON)),
    ),
    "kullback_leibler_divergence": (
        inline(lambda y, t: t * (np.log(t) - y)),
        inline(lambda y, t: -t),
    ),
}

Loop = Callable[..., Any]  # (y, t, scale, out)


@cache
def element_loops(name: str, parallel: bool) -> tuple[Loop, Loop]:
    """The gradient, and the sum of the losses with the gradient."""
    loss, derivative = ELEMENTS[name]
    compile_ = numba.njit(**OPTIONS, parallel=parallel)

    def gradient(y, t, scale, out):
        for i in prange(y.size):
            out[i] = scale * derivative(y[i], t[i])

    def both(y, t, scale, out):
        total = 0.0
        for i in prange(y.size):
            total += loss(y[i], t[i])
            out[i] = scale * derivative(y[i], t[i])
        return total

    return compile_(gradient), compile_(both)


@cache
def softmax_loops(indices: bool, parallel: bool) -> tuple[Loop, Loop]:
    compile_ = numba.njit(**OPTIONS, parallel=parallel)

    @numba.njit(**OPTIONS)
    def row(y, t, scale, out, index):
        """Writes the gradient of one row and returns its loss."""
        top = y[0]
        for j in range(y.size):
            top = max(top, y[j])
        total, pulls, product = ZERO, ZERO, ZERO
        for j in range(y.size):
            out[j] = np.exp(y[j] - top)
            total += out[j]
        if indices:
            factor = scale / total
            for j in range(y.size):
                out[j] *= factor
            out[index] -= scale
            return top + np.log(total) - y[index]
        for j in range(y.size):
            pulls += t[j]
            product += t[j] * (y[j] - top)
        factor = pulls * scale / total
        for j in range(y.size):
            out[j] = out[j] * factor - t[j] * scale
        return pulls * np.log(total) - product

    def gradient(y, t, scale, out):
        for i in prange(y.shape[0]):
            row(y[i], y[i] if indices else t[i], scale, out[i], t[i] if indices else 0)

    def both(y, t, scale, out):
        total = 0.0
        for i in prange(y.shape[0]):
            total += row(y[i], y[i] if indices else t[i], scale, out[i], t[i] if indices else 0)
        return total

    return compile_(gradient), compile_(both)


def candidates(problem: Problem, threads: int) -> Iterator[Candidate]:
    if problem.channels_first:
        return
    is_element_loss = problem.loss in ELEMENTS
    offset = len(problem.predictions) if problem.loss_type == "cosine_distance" else 0
    y, t, scale = problem.predictions, problem.labels, np.float32(problem.scale)
    if is_element_loss:
        y, t = y.ravel(), t.ravel()
    for parallel in (False, True) if threads > 1 else (False,):
        name = "numba parallel" if parallel else "numba"
        if is_element_loss:
            gradient, both = element_loops(problem.loss, parallel)
        else:
            gradient, both = softmax_loops(problem.loss == INDICES, parallel)

        def write_gradient(make: Callable[[], Any], gradient: Loop = gradient) -> Any:
            out = make()
            gradient(y, t, scale, out)
            return out

        def write_both(make: Callable[[], Any], both: Loop = both) -> Any:
            out = make()
            return both(y, t, scale, out) * float(scale) + offset, out

        given = np.empty_like(y)
        makers = {"out=": lambda given=given: given, "fresh": lambda: np.empty_like(y)}
        for destination, make in makers.items():
            yield Candidate(name, "gradient", destination, partial(write_gradient, make))
            yield Candidate(name, "loss and gradient", destination, partial(write_both, make))
