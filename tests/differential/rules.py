"""What the contract allows: differences that are limits of the type that is computed in.

Each rule is a sentence and a test of one element: what came, what the reference has, and the case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from math import prod

import numpy as np
from mpsnn_loss._reference.formulas import Array

from tests.differential.case import COMPUTE, Case

SUM_PRECISION = 2.0**-100

Test = Callable[[Case, str, Array, Array, Array], Array]


@dataclass(frozen=True)
class Rule:
    sentence: str
    # Of (case, "loss" or "gradient", actual, expected, bound), where it applies.
    excuses: Test


def factors_of(case: Case, result: str) -> list[Array]:
    """The magnitudes that an element is the product of, in float64: g, ω, v, 1/D and ℓ or dℓ."""
    call = case.reference
    divisors = call.divisors[:, None, None, None]
    by_divisor = np.where(divisors == 0, 0.0, 1 / divisors)
    if result == "loss":
        factors = [case.reference.weight, call.loss_weights, by_divisor, call.element_losses()]
    else:
        y, t = call.predictions, call.smoothed_labels
        if call.loss_type == "softmax_cross_entropy" and case.wrt == "predictions":
            element = t
        elif result == "hessian":
            element = call.formula.d2_predictions(y, t, call)
        else:
            element = call._derivative(case.wrt)
        g = np.asarray(case.g, np.float64)
        g = g.reshape(-1, 1, 1, 1) if g.ndim < 4 else g
        g = g[:1] if call.across_batch else g
        factors = [g, call.weight, call.element_weights, by_divisor, element]
        if result == "hessian" and call.loss_type == "categorical_cross_entropy":
            factors[-1:] = [t, 1 / y, 1 / y]  # made one after the other
    factors = [np.where(np.isfinite(f), np.abs(f), 0.0) for f in factors]
    return list(np.broadcast_arrays(*factors))


def loss_of_digits(case: Case, result: str) -> Array:
    """What a product below the normal range may be off by, times what it is multiplied with."""
    kind = np.finfo(COMPUTE[case.dtype])
    tiny, unit = float(kind.tiny), 4 * float(kind.smallest_subnormal)
    *others, element = factors_of(case, result)
    factors = [*others, element]
    error = np.zeros(element.shape)
    for count in range(1, len(factors) + 1):
        for inside in combinations(range(len(factors)), count):
            product = prod((factors[i] for i in inside), start=np.ones(element.shape))
            rest = prod((f for i, f in enumerate(factors) if i not in inside), start=1.0)
            error = np.maximum(error, np.where((product > 0) & (product < tiny), unit * rest, 0.0))
    t = np.abs(case.reference.smoothed_labels)
    if t.shape == element.shape:  # a label below the normal range loses digits in t/y and t·log y
        small_label = (t > 0) & (t < tiny)
        error = np.maximum(error, np.where(small_label, unit * prod(others), 0.0))
    return error


def is_below_normal(case: Case, result: str, actual: Array, expected: Array, bound: Array) -> Array:
    error = loss_of_digits(case, result)
    call = case.reference
    if result == "loss" and call.reduction != "none":
        error = error.sum() if call.across_batch else error.sum(axis=(1, 2, 3))
    elif call.loss_type == "softmax_cross_entropy":
        error = error + error.sum(axis=-1, keepdims=True)
    return np.asarray(np.abs(actual.astype(np.float64) - expected) <= error)


def is_beyond_range(case: Case, result: str, actual: Array, expected: Array, bound: Array) -> Array:
    largest = float(np.finfo(actual.dtype).max)
    return np.isinf(actual) & (np.sign(actual) * expected + bound > largest)


def has_infinite_factor(
    case: Case, result: str, actual: Array, expected: Array, bound: Array
) -> Array:
    operands = (case.labels, case.weights, case.source_gradient)
    infinite = any(a is not None and np.isinf(a).any() for a in operands)
    return infinite & ~np.isfinite(actual) & ~np.isfinite(expected)


def has_lost_divisor(
    case: Case, result: str, actual: Array, expected: Array, bound: Array
) -> Array:
    call = case.reference
    lost = np.zeros(len(case.predictions), bool)
    if call.reduction == "mean_by_weights" and call.divisor is None:
        counted = np.abs(call._counted())
        sizes = counted.sum(axis=(1, 2, 3))
        size = np.full(len(sizes), counted.sum()) if call.across_batch else sizes
        lost = np.abs(call.divisors) <= size * SUM_PRECISION
    if actual.ndim == 4:
        return lost[:, None, None, None]
    return lost if actual.ndim else lost.any()


RULES = {
    "below the normal range": Rule(
        "A product of some of g, ω, v, 1/D and the element's value is below the smallest normal "
        "number; it keeps fewer digits, and the other factors magnify what it lost.",
        is_below_normal,
    ),
    "beyond the range": Rule(
        "An infinity came, and the value, with its tolerance, may be beyond the largest number on "
        "that side: a sum whose terms are beyond it has no sign that could be told.",
        is_beyond_range,
    ),
    "lost divisor": Rule(
        "The weights cancel to less than the last digit of their sum, which is carried in two "
        "float64: whether anything is left of the divisor is not told.",
        has_lost_divisor,
    ),
    "infinite labels and factors": Rule(
        "A label, weight or source gradient is infinite, and so the result is not finite; whether "
        "it is NaN or an infinity depends on the order of sums and products: no promise.",
        has_infinite_factor,
    ),
}


def excuses(
    case: Case, result: str, actual: Array, expected: Array, bound: Array
) -> Iterator[tuple[str, Array]]:
    with np.errstate(all="ignore"):
        for name, rule in RULES.items():
            where = rule.excuses(case, result, actual, expected, bound)
            yield name, np.broadcast_to(where, actual.shape)
