"""A mismatch made small: the fewest and plainest values that still show the same kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from tests.differential.case import DEFAULTS, WEIGHTS, Case

PLAIN = (0.0, 1.0, 0.5, 2.0)


def cut(case: Case, axis: int, part: slice) -> Case:
    """Some of the images, rows, columns or channels."""

    def of(array: np.ndarray | None) -> np.ndarray | None:
        if array is None or array.ndim <= axis or array.shape[axis] == 1:
            return array
        return array[(slice(None),) * axis + (part,)].copy()

    def of_channels(array: np.ndarray | None) -> np.ndarray | None:
        return None if array is None else array[part].copy()

    labels = case.labels if case.has_indices and axis == 3 else of(case.labels)
    return replace(
        case,
        predictions=of(case.predictions),
        labels=labels,
        weights=of(case.weights),
        source_gradient=of(case.source_gradient),
        sample_weight=of(case.sample_weight),
        class_weight=of_channels(case.class_weight) if axis == 3 else case.class_weight,
    )


def simpler(case: Case) -> Iterator[Case]:
    """Each case that is one step simpler."""
    for axis, extent in enumerate(case.predictions.shape):
        if extent > 1:
            half = (extent + 1) // 2
            for part in (slice(0, half), slice(half, extent), slice(1, extent)):
                yield cut(case, axis, part)
    for name, default in DEFAULTS.items():
        value = getattr(case, name)
        if name in ("loss_type", "predictions", "labels"):
            continue
        if isinstance(value, np.ndarray) or value != default:
            yield replace(case, **{name: default})
    for name in ("predictions", "labels", "source_gradient", *WEIGHTS):
        array = getattr(case, name)
        if array is None or array.dtype.kind != "f":
            continue
        for plain in PLAIN:
            for at in np.ndindex(array.shape):
                if is_plainer(plain, float(array[at])):
                    changed = array.copy()
                    changed[at] = plain
                    yield replace(case, **{name: changed})


def is_plainer(plain: float, value: float) -> bool:
    return value not in PLAIN or PLAIN.index(plain) < PLAIN.index(value)


def shrink(case: Case, still_shows: Callable[[Case], bool], steps: int = 2000) -> Case:
    """The smallest that is found by taking any step that keeps the mismatch, until none does."""
    while steps > 0:
        for candidate in simpler(case):
            steps -= 1
            if shows(candidate, still_shows):
                case = candidate
                break
            if steps <= 0:
                break
        else:
            return case
    return case


def shows(case: Case, still_shows: Callable[[Case], bool]) -> bool:
    try:
        return still_shows(case)
    except ValueError:  # a smaller case may be refused: class indices out of range
        return False
