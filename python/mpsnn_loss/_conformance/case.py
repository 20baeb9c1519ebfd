"""A case: a name, and what to do on a device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import mpsnn_loss as ml
from mpsnn_loss._conformance.judging import Expectation, Record, refusal
from mpsnn_loss._conformance.problems import (
    Problem,
    Values,
    Wanted,
    with_functions,
    with_kernels,
)

Way = Callable[[ml.Device, Problem, Wanted], dict[str, Values]]
BY_KERNELS: Mapping[str, Way] = {"kernels": with_kernels}
BOTH_WAYS: Mapping[str, Way] = {**BY_KERNELS, "functions": with_functions}

USUAL: Wanted = ("loss", "predictions")
LABELS: Wanted = ("labels",)


@dataclass(frozen=True)
class Case:
    """`run` returns a record with "results" and, of a call of a loss, its "problem"."""

    name: str
    run: Callable[[ml.Device], Record]
    # Whether it may end the process on a real device: it gets a process of its own.
    is_risky: bool = False
    problem: Problem | None = None  # of a case that is a call of a loss
    group: str = ""  # cases share a process with those of their group only
    is_smoke: bool = False  # where it does not work, no other case of the run tells anything
    seconds: float | None = None  # after which it has failed, if not the usual


def solve(problem: Problem, ways: Mapping[str, Way], wanted: Wanted, device: ml.Device) -> Record:
    expectations = {name: Expectation(problem, name) for name in wanted}
    results = []
    for name, way in ways.items():
        try:
            answers = way(device, problem, wanted)
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
    wanted: Wanted = USUAL,
) -> Case:
    run = partial(solve, problem, ways, wanted)
    return Case(name, run, is_risky, problem, group="labels" if wanted == LABELS else "")


def with_labels(
    name: str,
    problem: Problem,
    ways: Mapping[str, Way] = BOTH_WAYS,
    *,
    is_risky: bool = False,
) -> Iterator[Case]:
    """The case, and that of its label gradient.

    No document describes label gradients: an encode of one may end the process, and must not take
    the loss and the usual gradient with it.
    """
    yield problem_case(name, problem, ways, is_risky=is_risky)
    yield problem_case(f"labels/{name}", problem, ways, is_risky=is_risky, wanted=LABELS)
