"""Functions, their operands, and how they are called: what the tests of inputs share."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import mpsnn_loss as ml
import numpy as np
import pytest

FUNCTIONS: list[Callable[..., Any]] = [ml.loss, ml.loss_gradient, ml.loss_and_gradient]
OPERANDS = ("predictions", "labels", "weights", "source_gradient")
DESTINATIONS = ("out", "loss_out")
MSE = "mean_squared_error"
SOFTMAX = "softmax_cross_entropy"
Y = np.array([[0.25, 0.5, 0.75], [1.0, 0.0, 0.5]], np.float32)
each_function = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)


def operands_of(function: Callable[..., Any]) -> tuple[str, ...]:
    return OPERANDS[:3] if function is ml.loss else OPERANDS


def arguments(function: Callable[..., Any], dtype: Any = np.float32) -> dict[str, Any]:
    """Operands in the order of `OPERANDS`, none reduced."""
    values = (Y, Y[::-1] / 2, Y + 0.5, Y - 0.25)
    arrays = {k: v.astype(dtype) for k, v in zip(OPERANDS, values, strict=True)}
    return {**{k: arrays[k] for k in operands_of(function)}, "loss_type": MSE, "reduction": "none"}


def parts(result: Any) -> list[np.ndarray]:
    return [np.asarray(part) for part in (result if isinstance(result, tuple) else (result,))]


def same(a: Any, b: Any) -> bool:
    pairs = zip(parts(a), parts(b), strict=True)
    return all(x.dtype == y.dtype and x.tobytes() == y.tobytes() for x, y in pairs)


# AddressSanitizer ends the process where memory runs out, instead of telling so.
SANITIZED = "libasan" in os.environ.get("LD_PRELOAD", "")


def in_a_fresh_interpreter(program: str, **environment: str) -> str:
    """What a program prints that ends well."""
    code = "import numpy as np, mpsnn_loss as ml\n" + textwrap.dedent(program)
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env=dict(os.environ, **environment),
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout.strip()


class AsArray:
    """What many libraries hand over: an object that makes an array of itself."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self.values() if callable(self.values) else np.array(self.values)
