"""A case: a name, and what to do on a device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import mpsnn_loss as ml
from mpsnn_loss._conformance.judging import Expectation, Record, refusal
from mpsnn_loss._conformance.problems import (
    Problem,
    Values,
    with_functions,
    with_kernels,
)

Way = Callable[[ml.Device, Problem], dict[str, Values]]
BY_KERNELS: Mapping[str, Way] = {"kernels": with_kernels}
BOTH_WAYS: Mapping[str, Way] = {**BY_KERNELS, "functions": with_functions}


@dataclass(frozen=True)
class Case:
    """`run` returns a record with "results" and, of a call of a loss, its "problem"."""

    name: str
    run: Callable[[ml.Device], Record]
    # Whether it may end the process on a real device: it gets a process of its own.
    is_risky: bool = False
    problem: Problem | None = None  # of a case that is a call of a loss


def solve(problem: Problem, ways: Mapping[str, Way], device: ml.Device) -> Record:
    expectations = {name: Expectation(problem, name) for name in ("loss", "predictions", "labels")}
    results = []
    for name, way in ways.items():
        try:
            answers = way(device, problem)
        except (RuntimeError, TypeError, ValueError) as error:
            results.append(refusal(name, error))
            continue
        results += [
            {"way": name, **expectations[result].judge(f"{name}: {result}", values)}
            for result, values in answers.items()
        ]
    return {"problem": problem.to_json(), "results": results}


def problem_case(
    name: str,
    problem: Problem,
    ways: Mapping[str, Way] = BOTH_WAYS,
    *,
    is_risky: bool = False,
) -> Case:
    return Case(name, partial(solve, problem, ways), is_risky, problem)
