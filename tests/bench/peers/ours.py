"""This package, through its functions on arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import mpsnn_loss as ml
import numpy as np

from tests.bench.problems import SHAPES, SOFTMAX, VARIED, Candidate, Problem
from tests.bench.results import ONE_THREAD

NAME = "mpsnn_loss"


def candidates(problem: Problem, threads: int) -> Iterator[Candidate]:
    ml.set_num_threads(threads)
    shape = SHAPES[problem.shape]
    axis = 1 if problem.channels_first else -1
    without_classes = tuple(np.delete(shape, axis))
    predictions = problem.predictions.reshape(shape)
    labels = problem.labels.reshape(without_classes if problem.class_indices else shape)
    out = np.empty_like(predictions)
    kind, reduction = problem.loss_type, problem.reduction

    # Calls as users write them: a partial with keywords would take half as long as a small call.
    def calls(work: str, function: Callable[..., Any]) -> Iterator[Candidate]:
        def fresh() -> Any:
            return function(predictions, labels, kind, reduction=reduction, axis=axis)

        def into_out() -> Any:
            return function(predictions, labels, kind, reduction=reduction, axis=axis, out=out)

        yield Candidate(NAME, work, "fresh", fresh)
        if work != "loss":
            yield Candidate(NAME, work, "out=", into_out)

    # What several threads are compared with, timed beside them.
    def one_thread() -> Any:
        ml.set_num_threads(1)
        ml.loss_gradient(predictions, labels, kind, reduction=reduction, axis=axis, out=out)
        ml.set_num_threads(threads)

    if threads > 1 and out.nbytes > 1e6:
        yield Candidate(NAME, ONE_THREAD, "out=", one_thread)
    yield from calls("loss", ml.loss)
    yield from calls("gradient", ml.loss_gradient)
    yield from calls("loss and gradient", ml.loss_and_gradient)
    if problem.shape in VARIED:
        yield from variants(problem, predictions, labels, axis, out)


def variants(
    problem: Problem, predictions: Any, labels: Any, axis: int, out: Any
) -> Iterator[Candidate]:
    """What is compared with the plain gradient of the same arrays."""
    kind = problem.loss_type
    keywords = {"reduction": problem.reduction, "axis": axis}
    gradient = partial(ml.loss_gradient, predictions, labels, kind, **keywords)

    def variant(name: str, call: Callable[[], Any]) -> Candidate:
        return Candidate(NAME, f"gradient, {name}", "out=", call)

    both = partial(ml.loss_gradient_and_hessian, predictions, labels, kind, **keywords)
    hessian = np.empty_like(out)
    yield variant("with Hessian", lambda: both(out=out, hessian_out=hessian))
    changed = predictions.copy()
    in_place = partial(ml.loss_gradient, changed, labels, kind, **keywords)
    yield variant("in place", lambda: in_place(out=changed))
    if problem.channels_first:
        last = [np.ascontiguousarray(np.moveaxis(a, 1, -1)) for a in (predictions, out)]
        moved = (
            labels if problem.class_indices else np.ascontiguousarray(np.moveaxis(labels, 1, -1))
        )
        keywords_last = {**keywords, "axis": -1}
        of_last = partial(ml.loss_gradient, last[0], moved, kind, **keywords_last)
        yield variant("channels last", lambda: of_last(out=last[1]))
    if not problem.class_indices:
        for dtype in half_formats():
            y, t, g = (array.astype(dtype) for array in (predictions, labels, out))
            half = partial(ml.loss_gradient, y, t, kind, **keywords)
            yield variant(str(np.dtype(dtype)), lambda half=half, g=g: half(out=g))
    for text, shape in weight_shapes(problem, predictions.shape, axis):
        weights = np.random.default_rng(3).uniform(0.5, 1.5, shape).astype(np.float32)
        weighted = partial(gradient, weights=weights)
        yield variant(f"weights {text}", lambda weighted=weighted: weighted(out=out))


def half_formats() -> list[Any]:
    try:
        import ml_dtypes
    except ImportError:
        return [np.float16]
    return [np.float16, ml_dtypes.bfloat16]


def weight_shapes(
    problem: Problem, shape: tuple[int, ...], axis: int
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Each way to broadcast along batch, pixels and channels; softmax has one weight per pixel."""
    kinds = ["pixels"] * len(shape)
    kinds[axis] = "channels"
    kinds[kinds.index("pixels")] = "batch"
    for flags in product((True, False), repeat=3):
        kept = dict(zip(("batch", "pixels", "channels"), flags, strict=True))
        if problem.loss_type == SOFTMAX and kept["channels"]:
            continue
        if "pixels" not in kinds and kept["pixels"]:
            continue
        extents = tuple(n if kept[kind] else 1 for n, kind in zip(shape, kinds, strict=True))
        yield "x".join(map(str, extents)), extents
