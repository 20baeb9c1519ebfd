"""What the package answered beside what the reference says, element by element."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from mpsnn_loss._reference.formulas import Array
from mpsnn_loss._reference.tolerances import (
    error_ratios,
    forward_bound,
    gradient_bound,
    hessian_bound,
)

from tests.differential.case import Case
from tests.differential.rules import excuses


@dataclass(frozen=True)
class Mismatch:
    """An element that is not what it must be; `kind` is what mismatches are counted by."""

    kind: str
    at: tuple[int, ...]
    actual: float
    expected: float
    excuse: str | None


def what(actual: float, expected: float) -> str:
    """The kind of a difference."""

    def name(x: float) -> str:
        if np.isnan(x):
            return "NaN"
        return ("+inf" if x > 0 else "-inf") if np.isinf(x) else "0" if x == 0 else "finite"

    return f"{name(actual)} where {name(expected)}"


def expected_of(case: Case, result: str) -> tuple[Array, Array]:
    """The value and the tolerance, in the shape in which the functions answer."""
    call = case.reference
    if result == "gradient":
        value = call.gradient(source_gradient=case.g, wrt=case.wrt)
        bound = gradient_bound(call, case.dtype, source_gradient=case.g, wrt=case.wrt)
        return value, bound
    if result == "hessian":
        value = call.hessian(source_gradient=case.g)
        return value, hessian_bound(call, case.dtype, source_gradient=case.g)
    value, bound = call.forward(), forward_bound(call, case.dtype)
    return (value[0], bound[0]) if call.across_batch else (value, bound)


def promised_zero(case: Case, shape: tuple[int, ...]) -> Array:
    """Where an element without weight makes its gradient, or its loss, exactly 0."""
    is_zero = case.reference.element_weights == 0
    if case.reference.formula.per_pixel or case.loss_type == "softmax_cross_entropy":
        is_zero = np.broadcast_to(is_zero.all(axis=-1, keepdims=True), is_zero.shape)
    return is_zero if is_zero.shape == shape else np.zeros(shape, bool)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(((a == b) & (np.signbit(a) == np.signbit(b)) | (np.isnan(a) & np.isnan(b))).all())


def mismatches(case: Case) -> Iterator[Mismatch]:
    """The first element of each kind."""
    results = case.results()
    for result in ("loss", "gradient", "hessian"):
        if result not in results:
            continue
        actual = results[result]
        where = f"{case.loss_type} {'by ' + case.wrt if result == 'gradient' else result}"
        for other in (f"fused {result}", f"{result} with hessian"):
            if other in results and not same_bits(actual, results[other]):
                yield Mismatch(f"{where}: fused and separate calls differ", (), 0, 0, None)
        value, bound = expected_of(case, result)
        with np.errstate(all="ignore"):
            bound = np.where(promised_zero(case, value.shape), 0.0, np.nan_to_num(bound, nan=0.0))
            wrong = error_ratios(actual, value, bound) > 1
        if not wrong.any():
            continue
        excused = list(excuses(case, result, actual, value, bound))
        seen = set()
        for at in zip(*np.nonzero(np.atleast_1d(wrong)), strict=True):
            at = at if actual.ndim else ()
            kind = f"{where}: {what(float(actual[at]), float(value[at]))}"
            excuse = next((name for name, mask in excused if mask[at]), None)
            if (kind, excuse) not in seen:
                seen.add((kind, excuse))
                index = tuple(int(i) for i in at)
                yield Mismatch(kind, index, float(actual[at]), float(value[at]), excuse)
