"""A result beside the contract and beside every reading of the header.

A result is a record for the JSON file:

    name       which result of the case
    verdict    agrees    what the contract says, within its tolerance
               differs   something else; `words` says how
               refused   an exception instead of a result; `words` has it
               recorded  a fact on which no document says anything
               absent    not available on this device
               died      the process ended, or did not end in time
               not run   the run had ended before
    words      one line for the table
    exception  the class of the exception that was raised
    nserror    domain, code and userInfo of the error of a command buffer
    output     the bits of the result
    error      its worst error as a share of the contract's tolerance
    scale      for each image, what the result is of the answer for D = 1, weight 1 and source
               gradient 1, fitted by least squares, and the part of the result that is left over
    matches    the readings that the result matches to `CLOSE`
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mpsnn_loss._conformance.problems import Problem, Values, array_to_json
from mpsnn_loss._conformance.readings import Question, Reading, question, readings
from mpsnn_loss._reference.formulas import Array
from mpsnn_loss._reference.tolerances import error_ratios, forward_bound, gradient_bound

Record = dict[str, Any]

# How near a result has to be to a reading to match it, relative to the largest of its image: far
# more than a GPU's own arithmetic is off, far less than one reading is from another.
CLOSE = 1e-3
SEVERAL = 12  # more matches than this are counted, not listed


@dataclass(frozen=True)
class Expectation:
    """What the contract and the readings answer for one result of a problem, worked out once.

    `result` is "loss", "predictions" or "labels".
    """

    problem: Problem
    result: str

    @cached_property
    def asked(self) -> Question:
        return question(self.problem, self.result)

    @cached_property
    def contract(self) -> tuple[Array, Array]:
        """The answer and its tolerance."""
        asked, dtype = self.asked, self.problem.predictions.dtype.name
        if self.result == "loss":
            return asked.answer(), forward_bound(asked.call, dtype)
        g = asked.source_gradient
        bound = gradient_bound(asked.call, dtype, source_gradient=g, wrt=self.result)
        return asked.answer(), bound

    @cached_property
    def readings(self) -> list[tuple[Reading, Array]]:
        return list(readings(self.problem, self.result))

    @cached_property
    def unit(self) -> Array:
        """The answer for D = 1, weight 1 and source gradient 1."""
        one = np.ones(len(self.problem.predictions))
        call = self.asked.with_call(weight=1.0, given_divisors=one).call
        return Question(call, self.result, np.ones(())).answer()

    def judge(self, name: str, actual: Values) -> Record:
        """`actual` may be image 0 of a loss alone."""
        actual = np.asarray(actual)
        expected, bound = (_as(each, actual) for each in self.contract)
        ratios = error_ratios(actual, expected, bound)
        worst = float(ratios.max(initial=0.0))
        is_close = _closeness(actual)
        matches = [reading for reading, answer in self.readings if is_close(_as(answer, actual))]
        record: Record = {
            "name": name,
            "result": self.result,
            "verdict": "agrees" if worst <= 1 else "differs",
            "words": "",
            "output": array_to_json(actual),
            "error": worst if np.isfinite(worst) else str(worst),
            "scale": _fitted_scales(_as(self.unit, actual), actual),
            "matches": matches[:SEVERAL],
            "number_of_matches": len(matches),
        }
        if worst > 1:
            at = np.unravel_index(int(ratios.argmax()), ratios.shape)
            record["words"] = (
                _difference(matches, self.readings[0][0], worst)
                + f"; at {tuple(map(int, at))} {actual[at]:.9g}, expected {expected[at]:.9g}"
            )
        return record


def refusal(name: str, error: Exception) -> Record:
    words = f"{type(error).__name__}: {error}"
    return {"name": name, "verdict": "refused", "words": words, **raised_by(error)}


def raised_by(error: Exception) -> Record:
    nserror = getattr(error, "nserror", None)
    found = {} if nserror is None else {"nserror": nserror}
    return {"exception": type(error).__name__, **found}


def has_device_error(record: Record) -> bool:
    """Metal may refuse a process for good once its work has failed."""
    return any(result.get("exception") == "DeviceError" for result in record["results"])


def absent(name: str, why: str) -> Record:
    return {"name": name, "verdict": "absent", "words": f"not available on this device: {why}"}


def fact(name: str, value: Any, documented: Any = None) -> Record:
    """A value that was read, beside the one that a document names."""
    if documented is None:
        return {"name": name, "verdict": "recorded", "words": str(value), "value": value}
    agrees = value == documented
    words = "" if agrees else f"{value!r}, documented {documented!r}"
    return {
        "name": name,
        "verdict": "agrees" if agrees else "differs",
        "words": words,
        "value": value,
        "documented": documented,
    }


def plain_value(value: Any) -> Any:
    """As JSON has it: enumerations are their raw values."""
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


def expected(name: str, value: Any, other: Any) -> Record:
    """A value that has to be the other, which may be None."""
    agrees = value == other
    words = "" if agrees else f"{value!r}, not {other!r}"
    return {"name": name, "verdict": "agrees" if agrees else "differs", "words": words,
            "value": plain_value(value)}  # fmt: skip


def expected_refusal(name: str, error: type[Exception], action: Callable[[], object]) -> Record:
    """The contract refuses this: no refusal, or another, is a difference."""
    try:
        action()
    except error as raised:
        return {"name": name, "verdict": "agrees", "words": "", "value": str(raised)}
    except Exception as raised:
        words = f"{type(raised).__name__} in place of {error.__name__}: {raised}"
        return {"name": name, "verdict": "differs", "words": words, **raised_by(raised)}
    return {"name": name, "verdict": "differs", "words": f"accepted, not {error.__name__}"}


def _as(values: Array, actual: Values) -> Array:
    """In the shape of the result: [N] is [N, 1, 1, 1], and a scalar is image 0."""
    values = np.asarray(values, np.float64)
    return values[0] if actual.ndim == 0 else values.reshape(actual.shape)


def _closeness(actual: Values) -> Callable[[Array], bool]:
    """Whether values lie within CLOSE of the result, and are NaN and infinite where it is."""
    value = actual.astype(np.float64)
    finite = np.isfinite(value)
    sizes = np.where(finite, np.abs(value), -1.0)
    top = int(sizes.argmax())  # where most of what is not close shows

    def is_close(expected: Array) -> bool:
        if finite.flat[top] and not (
            abs(value.flat[top] - expected.flat[top]) <= 2 * CLOSE * sizes.flat[top]
        ):
            return False
        if not np.array_equal(value[~finite], expected[~finite], equal_nan=True):
            return False
        if not np.isfinite(expected[finite]).all():
            return False
        largest = np.abs(expected[finite]).max(initial=0.0)
        return bool((np.abs(value[finite] - expected[finite]) <= CLOSE * largest).all())

    return is_close


def _fitted_scales(unit: Array, actual: Values) -> list[dict[str, float | None]]:
    images = zip(np.atleast_1d(unit), np.atleast_1d(actual), strict=True)
    return [_fit(np.ravel(b), np.ravel(a).astype(np.float64)) for b, a in images]


def _fit(unit: Array, actual: Array) -> dict[str, float | None]:
    finite = np.isfinite(unit) & np.isfinite(actual)
    unit, actual = unit[finite], actual[finite]
    size, length = float(unit @ unit), float(np.sqrt(actual @ actual))
    if size == 0 or length == 0:
        return {"scale": None, "left_over": None}
    scale = float(unit @ actual) / size
    return {"scale": scale, "left_over": float(np.linalg.norm(actual - scale * unit)) / length}


def _difference(matches: list[Reading], contract: Reading, worst: float) -> str:
    if contract in matches:
        return f"rounding: {worst:.3g} of the tolerance"
    if not matches:
        return "like no reading"
    nearest = min(matches, key=lambda reading: len(reading.items() - contract.items()))
    changed = [point for point in nearest if nearest[point] != contract[point]]
    return ", ".join(f"{point}: {nearest[point]}, not {contract[point]}" for point in changed)
