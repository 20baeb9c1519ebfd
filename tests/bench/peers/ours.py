"""This package, through its functions on arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import mpsnn_loss as ml
import numpy as np

from tests.bench.problems import SHAPES, Candidate, Problem
from tests.bench.results import ONE_THREAD

NAME = "mpsnn_loss"


def candidates(problem: Problem, threads: int) -> Iterator[Candidate]:
    ml.set_num_threads(threads)
    shape = SHAPES[problem.shape]
    predictions = problem.predictions.reshape(shape)
    labels = problem.labels.reshape(shape[:-1] if problem.class_indices else shape)
    out = np.empty_like(predictions)
    kind, reduction = problem.loss_type, problem.reduction

    # Calls as users write them: a partial with keywords would take half as long as a small call.
    def calls(work: str, function: Callable[..., Any]) -> Iterator[Candidate]:
        def fresh() -> Any:
            return function(predictions, labels, kind, reduction=reduction)

        def into_out() -> Any:
            return function(predictions, labels, kind, reduction=reduction, out=out)

        yield Candidate(NAME, work, "fresh", fresh)
        if work != "loss":
            yield Candidate(NAME, work, "out=", into_out)

    # What several threads are compared with, timed beside them.
    def one_thread() -> Any:
        ml.set_num_threads(1)
        ml.loss_gradient(predictions, labels, kind, reduction=reduction, out=out)
        ml.set_num_threads(threads)

    if threads > 1 and out.nbytes > 1e6:
        yield Candidate(NAME, ONE_THREAD, "out=", one_thread)
    yield from calls("loss", ml.loss)
    yield from calls("gradient", ml.loss_gradient)
    yield from calls("loss and gradient", ml.loss_and_gradient)
