"""Calls on threads with as little stack as Python allows and musl gives."""

from __future__ import annotations

import subprocess
import sys

EVERY_CALL = """
import itertools, threading
import mpsnn_loss as ml
import numpy as np

def calls():
    rng = np.random.default_rng(0)
    for loss, dtype, reduction, wrt in itertools.product(
        ml.MPSCNNLossType, ("f2", "f4", "f8"), ml.MPSCNNReductionType, ("predictions", "labels")
    ):
        if loss.name == "COSINE_DISTANCE" and reduction.name != "SUM":
            continue
        for shape in ((2, 3), (40, 5), (40, 21), (3, 300), (20, 7, 300)):
            y, t = rng.random((2, *shape)).astype(dtype)
            extents = shape[:-1] + (1,) if loss.name == "COSINE_DISTANCE" else shape
            weights = rng.random(extents).astype(dtype)
            huge = np.where(y > 0.9, y.dtype.type(np.finfo(dtype).max), y)
            for predictions in (y, huge):
                for v in (None, weights):
                    arguments = {"reduction": reduction, "weights": v}
                    ml.loss(predictions, t, loss, **arguments)
                    ml.loss_and_gradient(predictions, t, loss, **arguments, wrt=wrt)
            if wrt == "predictions" and loss.name in (
                "SOFTMAX_CROSS_ENTROPY", "CATEGORICAL_CROSS_ENTROPY"
            ):
                indices = rng.integers(shape[-1], size=shape[:-1])
                ml.loss_and_gradient(y, indices, loss, reduction=reduction, ignore_index=1)
    print("done")

def run():
    with np.errstate(all="ignore"):
        calls()

threading.stack_size(65536)
thread = threading.Thread(target=run)
thread.start()
thread.join()
"""


def test_every_call_runs_on_a_stack_of_64_kib() -> None:
    done = subprocess.run([sys.executable, "-c", EVERY_CALL], capture_output=True, text=True)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    assert done.stdout == "done\n", done.stderr[-2000:]
