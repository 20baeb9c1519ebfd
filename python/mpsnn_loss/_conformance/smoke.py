"""The first cases: one kernel, and one encode of it. Without them no other tells anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import mpsnn_loss as ml
from mpsnn_loss._conformance.case import BY_KERNELS, Case, problem_case
from mpsnn_loss._conformance.inputs import plain
from mpsnn_loss._conformance.judging import Record, fact


def one_kernel(device: ml.Device) -> Record:
    kernel = ml.MPSNNLossGradient(device, ml.MPSCNNLossDescriptor("mean_squared_error", "none"))
    return {"results": [fact("kernel", type(kernel).__name__, "MPSNNLossGradient"),
                        fact("device", kernel.device.name)]}  # fmt: skip


def smoke() -> Iterator[Case]:
    problem = plain("mean_squared_error", "none")
    encode = problem_case("smoke/encode", problem, BY_KERNELS, wanted=("predictions",))
    for case in (Case("smoke/kernel", one_kernel), encode):
        yield replace(case, group="smoke", is_smoke=True, seconds=60.0)
