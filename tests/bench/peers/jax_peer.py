"""JAX: the gradient of the loss, compiled; `out=` is an array donated to the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from tests.bench.problems import INDICES, Candidate, Problem

EPSILON = 1e-7


def log_loss(y, t):
    return -(t * jnp.log(y + EPSILON) + (1 - t) * jnp.log(1 - y + EPSILON)).mean()


def huber(y, t):
    e = jnp.abs(y - t)
    return jnp.where(e <= 1, 0.5 * e * e, e - 0.5).mean()


def hinge(y, t):
    margin = 1 - (2 * t - 1) * y
    return jnp.where(margin > 0, margin, 0).mean()  # maximum() has half the gradient at a tie


LOSSES: dict[str, Callable[[Any, Any], Any]] = {
    "mean_absolute_error": lambda y, t: jnp.abs(y - t).mean(),
    "mean_squared_error": lambda y, t: jnp.square(y - t).mean(),
    "softmax_cross_entropy": lambda y, t: (
        -(t * jax.nn.log_softmax(y, 1)).sum() / (y.size // y.shape[1])
    ),
    INDICES: lambda y, t: -jnp.take_along_axis(jax.nn.log_softmax(y, 1), t[:, None], 1).mean(),
    # softplus: the form with max(y, 0) has the wrong derivative at 0
    "sigmoid_cross_entropy": lambda y, t: (jax.nn.softplus(y) - y * t).mean(),
    "categorical_cross_entropy": lambda y, t: -(t * jnp.log(y)).mean(),
    "hinge": hinge,
    "huber": huber,
    "cosine_distance": lambda y, t: len(y) - (y * t).sum(),
    "log": log_loss,
    "kullback_leibler_divergence": lambda y, t: (t * (jnp.log(t) - y)).mean(),
}


class Donating:
    """Calls that write where the result of the call before was."""

    def __init__(self, function: Callable[[Any, Any], Any], y: Any, t: Any) -> None:
        self.function = jax.jit(
            lambda y, t, old: function(y, t), donate_argnums=2, keep_unused=True
        )
        self.arguments = y, t
        self.old = jnp.zeros_like(y)

    def __call__(self) -> Any:
        result = jax.block_until_ready(self.function(*self.arguments, self.old))
        self.old = result[-1] if isinstance(result, tuple) else result
        return result


def candidates(problem: Problem, threads: int) -> Iterator[Candidate]:
    """The number of threads follows the affinity of the process, set before JAX was imported."""
    loss = LOSSES[problem.loss]
    y, t = jnp.asarray(problem.predictions), jnp.asarray(problem.labels)
    for work, function in (
        ("gradient", jax.grad(loss)),
        ("loss and gradient", jax.value_and_grad(loss)),
    ):
        compiled = jax.jit(function)

        def fresh(compiled: Any = compiled) -> Any:
            return jax.block_until_ready(compiled(y, t))

        yield Candidate("JAX jit", work, "fresh", fresh)
        yield Candidate("JAX jit", work, "out=", Donating(function, y, t))
