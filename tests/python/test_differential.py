"""A short run of the random comparison with the reference; `nox -s differential` has long ones."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.differential.__main__ import compare, explain, find
from tests.differential.case import Case
from tests.differential.shrink import shrink


@pytest.mark.parametrize("seed", [11, 12])
def test_no_mismatch_that_no_rule_excuses(seed: int) -> None:
    _, first = compare(seed, 2000)
    shown = "\n\n".join(explain(kind, case) for kind, case in list(first.items())[:5])
    assert not first, f"{len(first)} kinds of mismatch, among them\n{shown}"


def test_a_mismatch_is_found_and_made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an engine that is wrong where a label is 0.75."""
    right = Case.results

    def wrong(case: Case) -> dict[str, np.ndarray]:
        results = right(case)
        if (case.labels == 0.75).any():
            results["gradient"] = results["fused gradient"] = results["gradient"] + 1
        return results

    monkeypatch.setattr(Case, "results", wrong)
    rng = np.random.default_rng(0)
    y, t = rng.uniform(0.1, 0.9, (2, 3, 2, 2, 5))
    t[1, 0, 1, 3] = 0.75
    case = Case("mean_squared_error", y, t, weights=y.copy(), weight=0.7, reduction="mean")
    kind = "mean_squared_error by predictions: finite where finite"
    small = shrink(case, lambda candidate: find(candidate, kind) is not None)
    assert small.labels.tolist() == [[[[0.75]]]]
    assert small.weights is None
    assert (small.weight, small.reduction) == (1.0, "sum")
