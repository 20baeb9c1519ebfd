"""This package, through its functions on arrays."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import mpsnn_loss as ml
import numpy as np

from tests.bench.problems import SHAPES, Candidate, Problem

NAME = "mpsnn_loss"


def candidates(problem: Problem, threads: int) -> Iterator[Candidate]:
    ml.set_num_threads(threads)
    shape = SHAPES[problem.shape]
    predictions = problem.predictions.reshape(shape)
    labels = problem.labels.reshape(shape[:-1] if problem.class_indices else shape)
    out = np.empty_like(predictions)
    arguments = (predictions, labels, problem.loss_type)
    reduction = {"reduction": problem.reduction}
    yield Candidate(NAME, "loss", "fresh", partial(ml.loss, *arguments, **reduction))
    for work, function in (
        ("gradient", ml.loss_gradient),
        ("loss and gradient", ml.loss_and_gradient),
    ):
        yield Candidate(NAME, work, "fresh", partial(function, *arguments, **reduction))
        yield Candidate(NAME, work, "out=", partial(function, *arguments, **reduction, out=out))
