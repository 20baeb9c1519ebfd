"""The private loss functions of scikit-learn.

They write the gradient of the sum, so they do a little less than the others, and a loss of each
sample, whose mean is taken here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn._loss import _loss

from tests.bench.problems import INDICES, Candidate, Problem

# The loss, and what its gradient is of ours before ours is divided by the count.
LOSSES: dict[str, tuple[Any, float]] = {
    "mean_absolute_error": (_loss.CyAbsoluteError(), 1.0),
    "mean_squared_error": (_loss.CyHalfSquaredError(), 0.5),
    "huber": (_loss.CyHuberLoss(1.0), 1.0),
    "sigmoid_cross_entropy": (_loss.CyHalfBinomialLoss(), 1.0),
    INDICES: (_loss.CyHalfMultinomialLoss(), 1.0),
}


def candidates(problem: Problem, threads: int) -> Iterator[Candidate]:
    if problem.loss not in LOSSES or problem.channels_first:
        return
    function, of_ours = LOSSES[problem.loss]
    y, t = problem.predictions, problem.labels
    if problem.class_indices:
        t = t.astype(y.dtype)
    else:
        y, t = y.ravel(), t.ravel()
    given, losses = np.empty_like(y), np.empty_like(t)
    makers = {"out=": lambda: given, "fresh": lambda: np.empty_like(y)}
    for destination, make in makers.items():

        def gradient(make: Any = make) -> Any:
            out = make()
            function.gradient(t, y, None, out, threads)
            return out

        def both(make: Any = make) -> Any:
            out = make()
            function.loss_gradient(t, y, None, losses, out, threads)
            return losses.mean(dtype=np.float64) / of_ours, out

        factor = of_ours / problem.scale
        yield Candidate("scikit-learn", "gradient", destination, gradient, factor)
        yield Candidate("scikit-learn", "loss and gradient", destination, both, factor)
