"""`python -m tests.differential`: draws, compares, shrinks, and prints what is not excused."""

from __future__ import annotations

import argparse
import sys
from collections import Counter

import numpy as np

from tests.differential import __doc__ as description
from tests.differential.case import Case, draw
from tests.differential.judge import Mismatch, mismatches
from tests.differential.shrink import shrink


def find(case: Case, kind: str) -> Mismatch | None:
    """The mismatch of this kind that no rule excuses."""
    return next((m for m in mismatches(case) if m.kind == kind and m.excuse is None), None)


def compare(seed: int, cases: int) -> tuple[Counter[str], dict[str, Case]]:
    """How many mismatches there are of each kind and rule, and the first unexcused case of each."""
    counts: Counter[str] = Counter()
    first: dict[str, Case] = {}
    for number in range(cases):
        case = draw(np.random.default_rng([seed, number]))
        for mismatch in mismatches(case):
            counts[mismatch.excuse or mismatch.kind] += 1
            if mismatch.excuse is None:
                first.setdefault(mismatch.kind, case)
    return counts, first


def explain(kind: str, case: Case) -> str:
    small = shrink(case, lambda candidate: find(candidate, kind) is not None)
    found = find(small, kind)
    assert found is not None
    at = list(found.at)
    return (
        f"{kind}\n  at {at}: {found.actual!r}, and the reference has {found.expected!r}\n  {small}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description=description)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=20_000, help="%(default)s")
    arguments = parser.parse_args()
    counts, first = compare(arguments.seed, arguments.cases)
    for name, count in counts.most_common():
        print(f"{count:7d} {name}")
    for kind, case in first.items():
        print(f"\n{explain(kind, case)}")
    print(f"\n{arguments.cases} cases of seed {arguments.seed}: {len(first)} kinds of mismatch")
    return 1 if first else 0


if __name__ == "__main__":
    sys.exit(main())
