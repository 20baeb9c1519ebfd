"""`python -m tests.differential.digest`: one number for the bits of thousands of results.

Two builds that print the same lines compute the same, on each instruction set that they have here
and with one thread and two. A change that is to move code and nothing else is held against it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys

import mpsnn_loss as ml
import numpy as np
from mpsnn_loss._reference.formulas import LOSSES

from tests.differential.case import WITH_INDICES, Case, draw

# Long and short rows, many of them and few; the elementwise loops cut the largest into parts.
LARGE = ((3, 1, 1, 70_001), (40_003, 1, 1, 3), (2, 37, 53, 19), (1, 9, 8, 4_096), (5, 200, 333, 1))


def draw_large(rng: np.random.Generator) -> Case:
    """An ordinary call on one of the large shapes."""
    loss_type = str(rng.choice(list(LOSSES)))
    dtype = str(rng.choice(["float16", "float32", "float64"]))
    shape = LARGE[rng.integers(len(LARGE))]
    y, t = LOSSES[loss_type].inputs(rng, shape)
    if loss_type in WITH_INDICES and rng.integers(2):
        t = rng.integers(0, shape[-1], shape[:-1])
    per_pixel = LOSSES[loss_type].per_pixel
    kept = [n if rng.integers(2) else 1 for n in shape]
    kept[-1] = 1 if per_pixel else kept[-1]
    return Case(
        loss_type,
        np.asarray(y, dtype),
        t if t.dtype.kind == "i" else np.asarray(t, dtype),
        weights=rng.uniform(0, 2, kept) if rng.integers(2) else None,
        reduction="sum" if per_pixel else str(rng.choice(["none", "sum", "mean"])),
        reduce_across_batch=bool(rng.integers(2)),
        weight=float(rng.choice([1.0, 0.3])),
    )


def bits(array: np.ndarray) -> bytes:
    """All bits, but those of a NaN, which no contract promises."""
    return np.where(np.isnan(array), array.dtype.type(np.nan), array).tobytes()


def digest(seed: int, cases: int, large: int) -> str:
    total = hashlib.sha256()
    for number in range(cases + large):
        rng = np.random.default_rng([seed, number])
        results = (draw(rng) if number < cases else draw_large(rng)).results()
        for name, result in results.items():
            total.update(f"{name}{result.dtype}{result.shape}".encode() + bits(result))
    return total.hexdigest()


def runs_here(setting: dict[str, str]) -> bool:
    ask = [sys.executable, "-c", "import mpsnn_loss; mpsnn_loss.build_info()"]
    return subprocess.run(ask, env=os.environ | setting, capture_output=True).returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.differential.digest")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=5_000, help="small ones, %(default)s")
    parser.add_argument("--large", type=int, default=100, help="%(default)s")
    parser.add_argument("--here", action="store_true", help="for this process alone")
    arguments = parser.parse_args()
    if arguments.here:
        isa, threads = ml.build_info()["instruction_set_in_use"], ml.get_num_threads()
        value = digest(arguments.seed, arguments.cases, arguments.large)
        print(f"{isa}, {threads} threads: {value}", flush=True)
        return 0
    own = [sys.executable, "-m", "tests.differential.digest", "--here"]
    for isa in ml.build_info()["instruction_sets"]:
        setting = {"MPSNN_LOSS_ISA": isa}
        if not runs_here(setting):
            print(f"{isa}: not on this machine")
            continue
        for threads in ("1", "2"):
            environment = os.environ | setting | {"MPSNN_LOSS_NUM_THREADS": threads}
            subprocess.run(own + sys.argv[1:], env=environment, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
