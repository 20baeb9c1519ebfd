"""Threads and processors of this process."""

from __future__ import annotations

import os


def fix_threads(threads: int) -> None:
    """Before anything else is imported that counts processors."""
    for name in ("OMP", "MKL", "OPENBLAS", "NUMBA", "MPSNN_LOSS"):
        os.environ[f"{name}_NUM_THREADS"] = str(threads)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
