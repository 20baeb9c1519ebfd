"""Threads and processors of this process."""

from __future__ import annotations

import os


def fix_threads(threads: int) -> None:
    """Before anything else is imported that counts processors."""
    for name in ("OMP", "MKL", "OPENBLAS", "NUMBA", "MPSNN_LOSS"):
        os.environ[f"{name}_NUM_THREADS"] = str(threads)
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):  # kernels forced for another reason
        os.environ.pop(name, None)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
