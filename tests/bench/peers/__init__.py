"""The libraries that are measured. Each module has `candidates(problem, threads)`.

A peer does its best: closed forms work in place where they can, and the gradient comes with the
divisor of the mean. One that is not installed is left out with its reason.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from importlib import metadata

from tests.bench.problems import Candidate, Problem

Candidates = Callable[[Problem, int], Iterable[Candidate]]

# The name of a peer: its module here and the package that it measures.
PEERS = {
    "mpsnn_loss": ("ours", "mpsnn-loss"),
    "triad": ("triad", ""),
    "torch": ("torch_peer", "torch"),
    "jax": ("jax_peer", "jax"),
    "numpy": ("numpy_peer", "numpy"),
    "numba": ("numba_peer", "numba"),
    "scikit-learn": ("sklearn_peer", "scikit-learn"),
}
ALWAYS = ("mpsnn_loss", "triad")


def load(name: str) -> Candidates:
    """ImportError, or OSError of a compiler, says why a peer is not there."""
    module = importlib.import_module(f"tests.bench.peers.{PEERS[name][0]}")
    candidates: Candidates = module.candidates
    return candidates


def version(name: str) -> str:
    package = PEERS[name][1]
    return metadata.version(package) if package else ""
