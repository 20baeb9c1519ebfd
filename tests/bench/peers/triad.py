"""The memory triad, compiled on the spot with the system's compiler.

It reads two arrays of the size of the predictions and writes a third, like most gradients.
"""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from tests.bench.problems import Candidate, Problem

PLAIN, NON_TEMPORAL = "triad", "triad_non_temporal"


@cache
def library() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "triad.so"
        flags = ["-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"]
        source = Path(__file__).with_suffix(".c")
        subprocess.run(["cc", *flags, str(source), "-o", str(path)], check=True)
        return ctypes.CDLL(str(path))


def candidates(problem: Problem, threads: int) -> Iterator[Candidate]:
    a = problem.predictions.ravel()
    b, memory = np.ones_like(a), np.zeros(a.size + 16, np.float32)
    start = -memory.ctypes.data % 64 // 4  # streaming stores want aligned addresses
    out = memory[start : start + a.size]
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (a, b, out)]
    arguments = (*pointers, ctypes.c_float(0.5), ctypes.c_size_t(a.size), ctypes.c_int(threads))

    def call(name: str) -> object:
        function = getattr(library(), name)
        function.restype = None
        keep_alive = (a, b, out)
        return lambda: (function(*arguments), keep_alive)

    for name in (PLAIN, NON_TEMPORAL):
        if hasattr(library(), name):
            yield Candidate(name, "triad", "out=", call(name))
