"""The gradient of softmax keeps its digits where p is near 1 (docs/contract.md, section 7), beside
exact arithmetic: of every device, and of the reference itself."""

from __future__ import annotations

from typing import Any

import mpmath
import mpsnn_loss as ml
import numpy as np
import pytest
from reference import losses

SOFTMAX = "softmax_cross_entropy"
CHANNELS = (1, 2, 3, 10, 16, 17, 100, 255, 300)


def confident(rng: np.random.Generator, channels: int, most: float) -> Any:
    """Rows in which one logit is up to `most` above all others; in every other they are equal."""
    y = rng.normal(size=(40, channels))
    y[::2] = 0.3
    y[np.arange(40), rng.integers(channels, size=40)] += np.log(channels) + most * rng.random(40)
    return y


def labels_of(rng: np.random.Generator, y: Any, kind: str) -> Any:
    if kind == "soft":
        return rng.random(y.shape)
    if kind == "of both signs":
        return rng.normal(size=y.shape)
    hot = y.argmax(-1) if kind == "right" else rng.integers(y.shape[-1], size=len(y))
    return np.eye(y.shape[-1])[hot]


def exact_row(y: Any, t: Any, scale: Any, s: float, classes: int) -> tuple[Any, Any]:
    """The gradient of a row, and what the contract's bound is relative to."""
    with mpmath.workdps(50):
        e = [mpmath.exp(mpmath.mpf(float(x)) - float(y.max())) for x in y]
        p = [x / mpmath.fsum(e) for x in e]
        offset, rest = mpmath.mpf(s) / classes, 1 - mpmath.mpf(s)
        f = [mpmath.mpf(float(x)) for x in scale]
        a = [(float(x) * rest + offset) * z for x, z in zip(t, f, strict=True)]
        size = [(abs(float(x)) * rest + offset) * abs(z) for x, z in zip(t, f, strict=True)]

        def pulls(j: int, own: Any, sign: int) -> Any:
            others = [k for k in range(len(p)) if k != j]
            by_label = p[j] * mpmath.fsum(own[k] for k in others)
            return by_label + sign * own[j] * mpmath.fsum(p[k] for k in others)

        channels = range(len(p))
        gradient = [pulls(j, a, -1) for j in channels]
        operands = [float(pulls(j, size, 1)) for j in channels]
    return gradient, np.array(operands)


def worst_share(given: Any, y: Any, t: Any, scale: Any, s: float, classes: int) -> float:
    wide = given.dtype == np.float64
    worst = 0.0
    for i in range(0, len(y), 13):
        exact, operands = exact_row(y[i], t[i], scale[i], s, classes)
        spread = min(float(np.ptp(y[i])), 745.0 if wide else 104.0)
        bound = (1e-14 if wide else 1e-6) * (1 + spread / 8) * operands
        error = np.array([float(abs(float(g) - e)) for g, e in zip(given[i], exact, strict=True)])
        tiny = float(np.finfo(given.dtype).tiny)
        lost = (np.array([float(abs(e)) for e in exact]) < tiny) & (np.abs(given[i]) <= tiny)
        share = np.where(lost | (error == 0), 0.0, error / np.maximum(bound, 1e-300))
        worst = max(worst, float(share.max()))
    return worst


@pytest.mark.parametrize("kind", ["right", "any", "soft", "of both signs"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_softmax_gradient_keeps_its_digits(device: ml.Device, dtype: str, kind: str) -> None:
    supported, reason = device.supports(dtype)
    if not supported:
        pytest.skip(reason)
    rng = np.random.default_rng(0)
    for channels in CHANNELS:
        for s, factors, most in ((0.0, "none", 30), (0.1, "g", 5), (0.0, "v", 80), (1.0, "v", 5)):
            y = confident(rng, channels, most).astype(dtype)
            t = labels_of(rng, y, kind).astype(dtype)
            arguments: dict[str, Any] = {"reduction": "none", "weight": 3.0, "label_smoothing": s}
            scale = np.full(y.shape, 3.0)
            if factors == "g":
                arguments["source_gradient"] = rng.normal(size=y.shape).astype(dtype)
                scale *= arguments["source_gradient"]
            if factors == "v":
                arguments["weights"] = rng.random((1, channels)).astype(dtype)
                scale *= arguments["weights"]
            given = ml.loss_gradient(y, t, SOFTMAX, **arguments, device=device)
            assert worst_share(given, y, t, scale, s, channels) <= 1
            properties = {k: v for k, v in arguments.items() if k != "source_gradient"}
            if "weights" in properties:
                properties["weights"] = properties["weights"].reshape(1, 1, 1, channels)
            pixels = (len(y), 1, 1, channels)
            call = losses.make_call(y.reshape(pixels), t.reshape(pixels), SOFTMAX, **properties)
            g = np.asarray(arguments.get("source_gradient", np.ones_like(y)), float).reshape(pixels)
            reference = call.gradient(source_gradient=g).reshape(y.shape)
            assert worst_share(reference, y, t, scale, s, channels) <= 1


def test_a_one_hot_gradient_has_the_right_sign_and_that_of_one_class_is_zero() -> None:
    assert ml.loss_gradient(np.float32([[30, 0]]), np.array([0]), SOFTMAX)[0, 0] == pytest.approx(
        -9.35762297e-14, rel=1e-6
    )
    for dtype in ("float16", "float32", "float64"):
        one = ml.loss_gradient(np.full((50, 1), 3, dtype), np.zeros(50, int), SOFTMAX)
        assert not one.any()
        assert not np.signbit(one).any()
        rng = np.random.default_rng(1)
        for channels in CHANNELS:
            y = confident(rng, channels, 40).astype(dtype)
            hot = rng.integers(channels, size=len(y))
            gradient = ml.loss_gradient(y, hot, SOFTMAX, reduction="sum")
            assert (gradient[np.arange(len(y)), hot] <= 0).all()
            assert (np.delete(gradient.ravel(), np.arange(len(y)) * channels + hot) >= 0).all()
