"""The readings of Apple's header: named alternatives for each point, evaluated in float64.

Each point on which the header leaves a choice is a table of alternatives. An alternative turns a
question to the reference into another question. The first of a table is the contract's; the first
of the divisors is the one that equals the contract's. A reading is one alternative for each point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np

from mpsnn_loss._conformance.problems import PROPERTIES, Problem
from mpsnn_loss._reference.calls import Call
from mpsnn_loss._reference.formulas import LOSSES, Array, Formula, softmax


@dataclass(frozen=True, kw_only=True)
class ReadCall(Call):
    """A call whose formula and divisors need not be the contract's."""

    row: Formula | None = None
    given_divisors: Array | None = None

    @property
    def formula(self) -> Formula:
        return LOSSES[self.loss_type] if self.row is None else self.row

    @cached_property
    def divisors(self) -> Array:
        return super().divisors if self.given_divisors is None else self.given_divisors


@dataclass(frozen=True)
class Question:
    """What is asked of the reference: "loss", or the gradient by "predictions" or "labels"."""

    call: ReadCall
    result: str
    source_gradient: Array  # as Call.gradient takes it
    repeats_total: bool = False  # the total of the batch stands in every image

    def answer(self) -> Array:
        """[N] for reduced losses, else like the predictions."""
        if self.result == "loss":
            loss = self.call.forward()
            return np.full_like(loss, loss[0]) if self.repeats_total else loss
        return self.call.gradient(source_gradient=self.source_gradient, wrt=self.result)

    def with_call(self, **changes: Any) -> Question:
        return replace(self, call=replace(self.call, **changes))

    def with_row(self, **changes: Any) -> Question:
        return self.with_call(row=replace(self.call.formula, **changes))


Alternative = Callable[[Question], Question]
Table = dict[str, Alternative]
# The name of the alternative chosen for each point.
Reading = dict[str, str]


def same(question: Question) -> Question:
    return question


def question(problem: Problem, result: str) -> Question:
    """What the contract answers."""
    g = np.asarray(problem.source_gradients, np.float64)
    properties: dict[str, Any] = problem.values
    call = ReadCall(
        predictions=np.asarray(problem.predictions, np.float64),
        labels=np.asarray(problem.labels, np.float64),
        loss_type=problem.loss_type,
        reduction=problem.reduction,
        weights=problem.weights,
        reduce_across_batch=problem.reduce_across_batch,
        number_of_classes=problem.number_of_classes,
        **properties,
    )
    return Question(call, result, g.reshape(-1) if g.shape == (len(g), 1, 1, 1) else g)


# --- Formulas ---


def row(**functions: Any) -> Alternative:
    return lambda q: q.with_row(**functions)


def with_equality_as(value: float) -> Alternative:
    return row(d_predictions=lambda y, t, k: np.where(y == t, value, np.sign(y - t)))


# (loss, result): the formulas that the header or a sibling framework can be read to mean.
FORMULAS: dict[tuple[str, str], Table] = {
    ("mean_absolute_error", "predictions"): {
        "NaN at y = t": with_equality_as(np.nan),
        "1 at y = t": with_equality_as(1.0),
        "-1 at y = t": with_equality_as(-1.0),
    },
    ("softmax_cross_entropy", "loss"): {
        "0 · inf is NaN": row(loss=lambda y, t, k: -t * np.log(softmax(y))),
    },
    ("softmax_cross_entropy", "predictions"): {
        "p - t'": row(d_predictions=lambda y, t, k: softmax(y) - t),
        "y - t'": row(d_predictions=lambda y, t, k: y - t),
    },
    ("categorical_cross_entropy", "loss"): {
        "0 · inf is NaN": row(loss=lambda y, t, k: -t * np.log(y)),
    },
    ("categorical_cross_entropy", "predictions"): {
        "0 / 0 is NaN": row(d_predictions=lambda y, t, k: -t / y),
    },
    ("hinge", "loss"): {
        "max(1 - t·y, 0)": row(loss=lambda y, t, k: np.maximum(1 - t * y, 0)),
    },
    ("hinge", "predictions"): {
        "-t where 1 - t·y > 0": row(d_predictions=lambda y, t, k: np.where(1 - t * y > 0, -t, 0.0)),
        "the margin itself counts": row(
            d_predictions=lambda y, t, k: np.where(1 - (2 * t - 1) * y >= 0, 1 - 2 * t, 0.0)
        ),
    },
    ("huber", "loss"): {
        "0.5·y² inside δ": row(
            loss=lambda y, t, k: np.where(
                np.abs(y - t) <= k.delta, y * y / 2, LOSSES["huber"].loss(y, t, k)
            )
        ),
    },
    ("huber", "predictions"): {
        "δ without its sign": row(
            d_predictions=lambda y, t, k: np.where(np.abs(y - t) > k.delta, k.delta, y - t)
        ),
    },
    ("cosine_distance", "loss"): {
        'one "1" per reduction': row(
            loss=lambda y, t, k: (
                k.reduce_across_batch / y[..., 0].size
                + (not k.reduce_across_batch) / y[0, ..., 0].size
                - (y * t).sum(axis=-1, keepdims=True)
            )
        ),
    },
    ("log", "loss"): {
        "0 · inf is NaN": row(
            loss=lambda y, t, k: -t * np.log(y + k.epsilon) - (1 - t) * np.log(1 - y + k.epsilon)
        ),
    },
    ("log", "predictions"): {
        "one fraction": row(
            d_predictions=lambda y, t, k: (
                (-2 * k.epsilon * t - t + y + k.epsilon)
                / (y * (1 - y) + k.epsilon * (k.epsilon + 1))
            )
        ),
    },
    ("kullback_leibler_divergence", "loss"): {
        "0 · inf is NaN": row(loss=lambda y, t, k: t * (np.log(t) - y)),
    },
    ("kullback_leibler_divergence", "predictions"): {
        "-t / y": row(d_predictions=lambda y, t, k: -t / y),
    },
}


def negated_labels(q: Question) -> Question:
    d_labels = q.call.formula.d_labels
    return q.with_row(d_labels=lambda y, t, k: -d_labels(y, t, k))


def labels_like_predictions(q: Question) -> Question:
    d_predictions = q.call.formula.d_predictions
    return q.with_row(d_labels=d_predictions or (lambda y, t, k: softmax(y) - t))


LABEL_FORMULAS: Table = {
    "negated": negated_labels,
    "the gradient by the predictions": labels_like_predictions,
}


# --- Smoothing, weights, source gradients, states, and the sum across the batch ---


def without_smoothing_factor(q: Question) -> Question:
    d_labels = q.call.formula.d_labels
    return q.with_row(d_labels=lambda y, t, k: d_labels(y, t, k) / (1 - k.label_smoothing))


SMOOTHING: Table = {
    "as documented": same,
    "none": lambda q: q.with_call(label_smoothing=0.0),
    "C in place of K": lambda q: q.with_call(number_of_classes=None),
}
LABEL_SMOOTHING: Table = {
    "the factor 1 - s": same,
    "no factor 1 - s": without_smoothing_factor,
}
WEIGHTS: Table = {
    "weight and weights multiply": same,
    "weights alone": lambda q: q.with_call(weight=1.0),
    "weight alone": lambda q: q.with_call(weights=None),
}


def with_tiny_weights(q: Question) -> Question:
    """0 · NaN is NaN: a weight that is not quite 0 is a weight like any other to the reference."""
    v = q.call.element_weights
    return q.with_call(weights=np.where(v == 0, 1e-300, v))


ZERO_WEIGHTS: Table = {"count for nothing": same, "0 · NaN is NaN": with_tiny_weights}
BATCH: Table = {
    "image 0 has the total, the others 0": same,
    "every image has the total": lambda q: replace(q, repeats_total=True),
    "every image has its own": lambda q: q.with_call(reduce_across_batch=False),
}


def source_gradients(problem: Problem) -> Table:
    g = np.asarray(problem.source_gradients, np.float64)

    def using(value: Array) -> Alternative:
        return lambda q: replace(q, source_gradient=value)

    table = {"own image": using(g), "image 0": using(g[:1]), "ignored": using(np.ones(()))}
    if g.shape == problem.predictions.shape and g[0].size > 1:
        table["first element of the image"] = using(g[:, :1, :1, :1])
    contract = "image 0" if problem.across else "own image"
    return {contract: same, **{name: each for name, each in table.items() if name != contract}}


def states(problem: Problem) -> Table:
    own = dict(zip(PROPERTIES, problem.own_values or (), strict=False))
    return {"the state wins": same, "the kernel's own win": lambda q: q.with_call(**own)}


# --- Divisors ---


def divisor_values(problem: Problem) -> dict[str, Array]:
    """Every D that the header can be read to mean, for each image."""
    n, height, width, channels = problem.predictions.shape
    v = np.ones(1) if problem.weights is None else np.asarray(problem.weights, np.float64)
    counted = np.broadcast_to(v, problem.predictions.shape) != 0
    elements = counted.sum(axis=(1, 2, 3)).astype(np.float64)
    pixels = counted.any(axis=-1).sum(axis=(1, 2)).astype(np.float64)
    one = np.ones(n)
    return {
        "1": one,
        "C": one * channels,
        "H·W": one * height * width,
        "H·W·C": one * height * width * channels,
        "N": one * n,
        "N·H·W": one * n * height * width,
        "N·H·W·C": one * n * height * width * channels,
        "non-zero weights": elements,
        "non-zero weights of the batch": one * elements.sum(),
        "pixels with a weight": pixels,
        "pixels of the batch with a weight": one * pixels.sum(),
    }


def divisors(problem: Problem) -> dict[str, Array]:
    """Those of a reduction; without one there is nothing to choose."""
    if problem.reduction == "none":
        return {}
    contract = question(problem, "loss").call.divisors
    values = divisor_values(problem)
    order = sorted(values, key=lambda name: not np.array_equal(values[name], contract))
    return {name: values[name] for name in order}


def divided(whole: Array, divisor: Array) -> Array:
    """Each image by its D; nothing where D is 0."""
    d = divisor.reshape(-1, *(1 for _ in whole.shape[1:]))
    with np.errstate(all="ignore"):
        return np.where(d == 0, 0.0, whole / d)


# --- All points together ---


def tables(problem: Problem, result: str) -> dict[str, Table]:
    """The points but the divisor that leave a choice for this result, in the order of applying."""
    is_loss, is_labels = result == "loss", result == "labels"
    smooths = LOSSES[problem.loss_type].smoothing_level is not None and problem.label_smoothing > 0
    has_weights = problem.weights is not None
    has_zeros = has_weights and not np.all(problem.weights)
    has_nan = bool(np.isnan(problem.predictions).any())
    formulas = LABEL_FORMULAS if is_labels else FORMULAS.get((problem.loss_type, result), {})
    choices: dict[str, Table] = {
        "states": states(problem) if problem.own_values is not None and not is_loss else {},
        "weights": WEIGHTS if has_weights and problem.weight != 1 else {},
        "zero weights": ZERO_WEIGHTS if has_zeros and has_nan else {},
        "smoothing": {} if not smooths else LABEL_SMOOTHING if is_labels else SMOOTHING,
        "formula": {"contract": same, **formulas} if formulas else {},
        "source gradient": {} if is_loss else source_gradients(problem),
        "batch": BATCH if is_loss and problem.across else {},
    }
    return {point: table for point, table in choices.items() if table}


def readings(problem: Problem, result: str) -> Iterator[tuple[Reading, Array]]:
    """The answer of every combination of alternatives; the contract is the first."""
    points, by_name = tables(problem, result), divisors(problem)
    one = np.ones(len(problem.predictions))
    for names in product(*points.values()):
        asked = question(problem, result)
        for name, table in zip(names, points.values(), strict=True):
            asked = table[name](asked)
        reading = dict(zip(points, names, strict=True))
        if not by_name:
            yield reading, asked.answer()
            continue
        whole = asked.with_call(given_divisors=one).answer()
        for name, divisor in by_name.items():
            yield {**reading, "divisor": name}, divided(whole, divisor)
