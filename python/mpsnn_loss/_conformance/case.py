"""A case: a name, and what to do on a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import mpsnn_loss as ml
from mpsnn_loss._conformance.judging import Expectation, Record, refusal
from mpsnn_loss._conformance.problems import (
    Problem,
    Values,
    with_functions,
    with_kernels,
    with_one_image_repeated,
)

Way = Callable[[ml.Device, Problem], dict[str, Values]]
WAYS: dict[str, Way] = {
    "kernels": with_kernels,
    "functions": with_functions,
    "one image repeated": with_one_image_repeated,
}


@dataclass(frozen=True)
class Case:
    """`run` returns a record with "results" and, of a call of a loss, its "problem"."""

    name: str
    run: Callable[[ml.Device], Record]
    # Whether it may end the process on a real device: it gets a process of its own.
    is_risky: bool = False


def solve(problem: Problem, ways: dict[str, Way], device: ml.Device) -> Record:
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


def problem_case(name: str, problem: Problem, *ways: str, is_risky: bool = False) -> Case:
    chosen = {way: WAYS[way] for way in ways or ("kernels", "functions")}
    return Case(name, partial(solve, problem, chosen), is_risky)
