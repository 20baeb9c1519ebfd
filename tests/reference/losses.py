"""The reference of the package, and how a test compares a result with it."""

from __future__ import annotations

import numpy as np
from mpsnn_loss._reference.calls import Call, exact_sum, forward, gradient, hessian, make_call
from mpsnn_loss._reference.formulas import LOSSES, Array
from mpsnn_loss._reference.layout import Layout
from mpsnn_loss._reference.tolerances import (
    error_ratios,
    forward_bound,
    gradient_bound,
    hessian_bound,
)
from numpy.typing import ArrayLike

__all__ = [
    "LOSSES",
    "Array",
    "Call",
    "Layout",
    "assert_within",
    "exact_sum",
    "forward",
    "forward_bound",
    "gradient",
    "gradient_bound",
    "hessian",
    "hessian_bound",
    "make_call",
]


def assert_within(
    actual: ArrayLike, expected: ArrayLike, bound: ArrayLike, what: str = ""
) -> float:
    """Fail where `actual` is further than `bound` from `expected`; return the worst error / bound.

    `error_ratios` says what an error is.
    """
    actual, expected = np.asarray(actual), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, not {expected.shape}"
    ratio = error_ratios(actual, expected, bound)
    worst = float(ratio.max(initial=0.0))
    if worst > 1:
        at = tuple(int(i) for i in np.unravel_index(ratio.argmax(), ratio.shape))
        raise AssertionError(
            f"{what}: {actual.dtype} result {float(actual[at])!r} at {at}, expected "
            f"{float(expected[at])!r}: {worst:.3g} of the tolerance, and {(ratio > 1).sum()} of "
            f"{ratio.size} results are outside"
        )
    return worst
