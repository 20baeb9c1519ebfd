"""PyTorch: autograd, closed forms, and both compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from tests.bench.problems import DESTINATIONS, INDICES, Candidate, Problem

EPSILON = 1e-7


def hinge(y, t, scale, out):
    out = torch.mul(t, -2 * scale, out=out).add_(scale)  # -m times the scale
    return out.mul_(torch.mul(out, y).gt(-scale))


def log(y, t, scale, out):
    out = torch.neg(t, out=out).add_(1).div_((1 + EPSILON) - y)
    return out.sub_(t / (y + EPSILON)).mul_(scale)


def softmax_cross_entropy(y, t, scale, out):
    pulls = t.sum(1, keepdim=True).mul_(scale)
    return torch.softmax(y, 1, out=out).mul_(pulls).sub_(t, alpha=scale)


def softmax_of_indices(y, t, scale, out):
    classes = t[:, None]
    pulls = torch.full(classes.shape, -scale)
    return torch.softmax(y, 1, out=out).mul_(scale).scatter_add_(1, classes, pulls)


def log_loss(y, t):
    return -(t * torch.log(y + EPSILON) + (1 - t) * torch.log(1 - y + EPSILON)).mean()


Loss = Callable[[Any, Any], Any]
Gradient = Callable[..., Any]  # (y, t, scale, out): out is written, or made where it is None

# The mean loss as its users write it, and the gradient in closed form.
FORMULAS: dict[str, tuple[Loss, Gradient]] = {
    "mean_absolute_error": (
        F.l1_loss,
        lambda y, t, scale, out: torch.sub(y, t, out=out).sign_().mul_(scale),
    ),
    "mean_squared_error": (
        F.mse_loss,
        lambda y, t, scale, out: torch.sub(y, t, out=out).mul_(2 * scale),
    ),
    "softmax_cross_entropy": (F.cross_entropy, softmax_cross_entropy),
    INDICES: (F.cross_entropy, softmax_of_indices),
    "sigmoid_cross_entropy": (
        F.binary_cross_entropy_with_logits,
        lambda y, t, scale, out: torch.sigmoid(y, out=out).sub_(t).mul_(scale),
    ),
    "categorical_cross_entropy": (
        lambda y, t: -(t * torch.log(y)).mean(),
        lambda y, t, scale, out: torch.div(t, y, out=out).mul_(-scale),
    ),
    "hinge": (lambda y, t: torch.relu(1 - (2 * t - 1) * y).mean(), hinge),
    "huber": (
        F.huber_loss,
        lambda y, t, scale, out: torch.sub(y, t, out=out).clamp_(-1, 1).mul_(scale),
    ),
    "cosine_distance": (
        lambda y, t: len(y) - (y * t).sum(),
        lambda y, t, scale, out: torch.neg(t, out=out),
    ),
    "log": (F.binary_cross_entropy, log),
    "kullback_leibler_divergence": (
        F.kl_div,
        lambda y, t, scale, out: torch.mul(t, -scale, out=out),
    ),
}
# Where autograd's own function is slower than the plain formula, the closed form takes the formula.
CLOSED_LOSSES: dict[str, Loss] = {
    "log": log_loss,
    "kullback_leibler_divergence": lambda y, t: (t * (torch.log(t) - y)).mean(),
}


def candidates(problem: Problem, threads: int) -> Iterator[Candidate]:
    torch.set_num_threads(threads)
    torch._dynamo.reset()  # no call pays for the shapes of another problem
    loss, gradient = FORMULAS[problem.loss]
    closed_loss = CLOSED_LOSSES.get(problem.loss, loss)
    y, t = torch.from_numpy(problem.predictions), torch.from_numpy(problem.labels)
    scale = problem.scale
    out = torch.empty_like(y)

    def both(y: Any, t: Any, scale: float, out: Any) -> Any:
        return closed_loss(y, t), gradient(y, t, scale, out)

    for destination in DESTINATIONS:
        arguments = (y, t, scale, out if destination == "out=" else None)
        yield Candidate("torch closed", "gradient", destination, partial(gradient, *arguments))
        yield Candidate("torch closed", "loss and gradient", destination, partial(both, *arguments))
    yield from compiled(gradient, both, y, t, scale, out)
    yield from autograd(loss, y.detach().requires_grad_(), t)


def compiled(
    gradient: Gradient, both: Gradient, y: Any, t: Any, scale: float, out: Any
) -> Iterator[Candidate]:
    def gradient_fresh(y: Any, t: Any) -> Any:
        return gradient(y, t, scale, None)

    def gradient_into(y: Any, t: Any, out: Any) -> Any:
        return out.copy_(gradient(y, t, scale, None))  # one loop, which writes to out

    def both_fresh(y: Any, t: Any) -> Any:
        return both(y, t, scale, None)

    def both_into(y: Any, t: Any, out: Any) -> Any:
        loss, result = both(y, t, scale, None)
        return loss, out.copy_(result)

    for work, fresh, into in (
        ("gradient", gradient_fresh, gradient_into),
        ("loss and gradient", both_fresh, both_into),
    ):
        compile_ = partial(torch.compile, dynamic=False)
        yield Candidate("torch.compile", work, "fresh", partial(compile_(fresh), y, t))
        yield Candidate("torch.compile", work, "out=", partial(compile_(into), y, t, out))


def autograd(loss: Loss, y: Any, t: Any) -> Iterator[Candidate]:
    def differentiate(function: Loss) -> Any:
        value = function(y, t)
        return value.detach(), *torch.autograd.grad(value, y)

    for name, function in (
        ("torch autograd", loss),
        ("torch.compile autograd", torch.compile(loss, dynamic=False)),
    ):
        yield Candidate(name, "loss and gradient", "fresh", partial(differentiate, function))
