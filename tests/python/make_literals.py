"""Writes literals.json: the ten losses and both derivatives at special points, from mpmath.

    python tests/python/make_literals.py

Every formula is written down here a second time, in scalar arithmetic of 450 digits and straight
from the contract, with no regard to cancellation or overflow. Inputs are numbers of the named type,
as hex floats; results are decimal strings of 25 digits, before any rounding to that type.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import mpmath
from mpmath import mp, mpf

OUTPUT = Path(__file__).with_name("literals.json")
# The logistic function of -700 is 1e-304; its distance from 0 and 1 must survive a subtraction.
mp.dps = 450

Number = Any  # mpf
Results = tuple[list[Number], list[Number], list[Number]]  # loss, d/dy, d/dt
INF, NAN = float("inf"), float("nan")


def log(x: Number) -> Number:
    if mpmath.isnan(x) or x < 0:
        return mp.nan
    return -mp.inf if x == 0 else mpmath.log(x)


def divide(a: Number, b: Number) -> Number:
    """IEEE 754, for a positive zero."""
    if b != 0:
        return a / b
    return mp.nan if a == 0 or mpmath.isnan(a) else mpmath.sign(a) * mp.inf


def zero_label(label: Number, value: Callable[[], Number]) -> Number:
    """A product with a label factor that is exactly 0 is exactly 0."""
    return mpf(0) if label == 0 else value()


def clamp(x: Number, limit: Number) -> Number:
    return x if mpmath.isnan(x) else max(-limit, min(x, limit))


def sign(x: Number) -> Number:
    return x if mpmath.isnan(x) else mpmath.sign(x)


def absolute(y: Number, t: Number, k: dict[str, Number]) -> Results:
    return abs(y - t), sign(y - t), -sign(y - t)


def squared(y: Number, t: Number, k: dict[str, Number]) -> Results:
    return (y - t) ** 2, 2 * (y - t), -2 * (y - t)


def sigmoid(y: Number, t: Number, k: dict[str, Number]) -> Results:
    s = k["label_smoothing"]
    t = t * (1 - s) + s / 2
    positive = y if mpmath.isnan(y) else max(y, mpf(0))
    loss = positive - zero_label(t, lambda: y * t) + mpmath.log1p(mpmath.exp(-abs(y)))
    return loss, 1 / (1 + mpmath.exp(-y)) - t, -(1 - s) * y


def categorical(y: Number, t: Number, k: dict[str, Number]) -> Results:
    loss, d_y = zero_label(t, lambda: -t * log(y)), zero_label(t, lambda: -divide(t, y))
    return loss, d_y, -log(y)


def hinge(y: Number, t: Number, k: dict[str, Number]) -> Results:
    m = 2 * t - 1
    distance = 1 - m * y
    if mpmath.isnan(distance):
        return mp.nan, mp.nan, mp.nan
    return (distance, -m, -2 * y) if distance > 0 else (mpf(0), mpf(0), mpf(0))


def huber(y: Number, t: Number, k: dict[str, Number]) -> Results:
    e, delta = y - t, k["delta"]
    inside = abs(e) <= delta
    loss = e**2 / 2 if inside else delta**2 / 2 + delta * (abs(e) - delta)
    return loss, clamp(e, delta), -clamp(e, delta)


def log_loss(y: Number, t: Number, k: dict[str, Number]) -> Results:
    hit, miss = y + k["epsilon"], 1 - y + k["epsilon"]
    first = zero_label(t, lambda: -t * log(hit))
    second = zero_label(1 - t, lambda: -(1 - t) * log(miss))
    d_first = zero_label(t, lambda: -divide(t, hit))
    d_second = zero_label(1 - t, lambda: divide(1 - t, miss))
    return first + second, d_first + d_second, log(miss) - log(hit)


def kullback_leibler(y: Number, t: Number, k: dict[str, Number]) -> Results:
    return zero_label(t, lambda: t * (log(t) - y)), -t, log(t) + 1 - y


def elementwise(function: Callable[..., Results]) -> Callable[..., Results]:
    def row(y: list[Number], t: list[Number], k: dict[str, Number]) -> Results:
        loss, d_y, d_t = zip(*(function(a, b, k) for a, b in zip(y, t, strict=True)), strict=True)
        return list(loss), list(d_y), list(d_t)

    return row


def cosine(y: list[Number], t: list[Number], k: dict[str, Number]) -> Results:
    products = [zero_label(b, lambda a=a, b=b: a * b) for a, b in zip(y, t, strict=True)]
    return [1 - mpmath.fsum(products)], [-b for b in t], [-a for a in y]


def softmax(y: list[Number], t: list[Number], k: dict[str, Number]) -> Results:
    s, classes = k["label_smoothing"], k["number_of_classes"]
    t = [b * (1 - s) + s / classes for b in t]
    if any(mpmath.isnan(a) or a == mp.inf for a in y) or all(a == -mp.inf for a in y):
        # An undefined row: only a product with a label of zero is still zero.
        return [mpf(0) if b == 0 else mp.nan for b in t], [mp.nan] * len(y), [mp.nan] * len(y)
    top = max(y)
    exponentials = [mpmath.exp(a - top) for a in y]
    total = mpmath.fsum(exponentials)
    # log(total) near 1 would lose what is below 450 digits.
    others = mpmath.fsum(e for i, e in enumerate(exponentials) if i != y.index(top))
    lp = [a - top - mpmath.log1p(others) for a in y]
    loss = [zero_label(b, lambda b=b, x=x: -b * x) for b, x in zip(t, lp, strict=True)]
    pull = mpmath.fsum(t)
    d_y = [e / total * pull - b for e, b in zip(exponentials, t, strict=True)]
    return loss, d_y, [-(1 - s) * x for x in lp]


FORMULAS: dict[str, Callable[..., Results]] = {
    "mean_absolute_error": elementwise(absolute),
    "mean_squared_error": elementwise(squared),
    "softmax_cross_entropy": softmax,
    "sigmoid_cross_entropy": elementwise(sigmoid),
    "categorical_cross_entropy": elementwise(categorical),
    "hinge": elementwise(hinge),
    "huber": elementwise(huber),
    "cosine_distance": cosine,
    "log": elementwise(log_loss),
    "kullback_leibler_divergence": elementwise(kullback_leibler),
}

DEFAULTS = {"label_smoothing": 0.0, "epsilon": 1e-7, "delta": 1.0}


# --- The points ---

Case = tuple[str, str, list[float], list[float], dict[str, float]]  # loss, name, y, t, properties


def pairs(ys: list[float], ts: list[float]) -> tuple[list[float], list[float]]:
    """Every y with every t, and y = t."""
    all_pairs = [*product(ys, ts), *((y, y) for y in ys if abs(y) < INF)]
    return [y for y, _ in all_pairs], [t for _, t in all_pairs]


def points(dtype: str) -> Iterator[Case]:
    single = dtype == "float32"
    below_one = 1 - 2.0 ** (-24 if single else -53)
    above_one = 1 + 2.0 ** (-23 if single else -52)
    subnormal = 1e-40 if single else 1e-310
    largest = 3e38 if single else 1.5e308
    one_ulp = 2.0 ** (-23 if single else -52)

    ordinary = [0.0, 1.0, 0.1, -0.7, 1e-20, above_one, below_one]
    extreme = [37.0, -232.8, 1e20, INF, -INF, NAN]
    differences = pairs([*ordinary, *extreme], [0.0, 1.0, 0.3, -1e20, NAN])
    yield "mean_absolute_error", "differences", *differences, {}
    yield "mean_squared_error", "differences", *differences, {}
    for delta in (1.0, 0.1, 1e-3, 30.0):
        yield "huber", f"differences, delta {delta}", *differences, {"delta": delta}
        at = [delta, -delta, delta * above_one, -delta * below_one, 2 * delta, 3 * delta]
        yield "huber", f"around delta {delta}", at, [0.0] * len(at), {"delta": delta}

    logits = [0.0, 0.1, 1.0, 1e-8, 16.5, 20.0, 37.0, 87.0, 88.8, 103.9, 232.8, 700.0, 1e20, INF]
    logits = [*logits, *(-y for y in logits if y), NAN]
    yield "sigmoid_cross_entropy", "hard labels", *pairs(logits, [0.0, 1.0]), {}
    yield "sigmoid_cross_entropy", "soft labels", *pairs(logits[:-1], [0.5, 0.3, below_one]), {}
    finite = [y for y in logits if abs(y) < INF]
    yield "sigmoid_cross_entropy", "smoothed", *pairs(finite, [0.0, 1.0]), {"label_smoothing": 0.2}
    all_smooth = {"label_smoothing": 1.0}
    yield "sigmoid_cross_entropy", "smoothed away", *pairs(finite, [0.0, 1.0]), all_smooth

    probabilities = [1.0, 0.5, 0.1, 0.7, 1e-7, 0.0, below_one, above_one, subnormal, 2.0, 1e20]
    labels = [0.0, 1.0, 0.5, 0.3, 2.0]
    odd = [INF, -INF, -1.0, NAN]
    yield "categorical_cross_entropy", "all", *pairs([*probabilities, *odd], [*labels, NAN]), {}

    margins = [1.0, below_one, above_one, 0.0, 0.3, 2.0, 1e-8, 37.0, 1e20, INF]
    margins = [*margins, *(-y for y in margins if y), NAN]
    yield "hinge", "hard labels", *pairs(margins, [0.0, 1.0]), {}
    yield "hinge", "soft labels", *pairs(margins, [0.25, 0.75, -0.5, 2.0]), {}

    inside = [0.0, 1.0, 0.5, 0.1, 0.9, 0.499, 1e-10, below_one]
    for epsilon in (0.0, 1e-7, 1e-3):
        properties = {"epsilon": epsilon}
        yield "log", f"epsilon {epsilon}", *pairs(inside, [0.0, 1.0, 0.5, 0.3]), properties
    yield "log", "outside", *pairs([-1.0, 2.0, 1e20, INF, NAN], [0.0, 1.0]), {}

    log_probabilities = [0.0, -0.1, -1.0, -1e-8, -37.0, -232.8, -1e20, 3.0, -INF, INF, NAN]
    targets = [*labels, 1e-7, below_one, subnormal, -1.0, NAN]
    yield "kullback_leibler_divergence", "all", *pairs(log_probabilities, targets), {}
    exact = [mpmath.log(mpf(t)) for t in (0.5, 0.3, 0.9)]  # the loss is what rounding leaves
    yield "kullback_leibler_divergence", "log t", [float(y) for y in exact], [0.5, 0.3, 0.9], {}

    third = [1 / 3, 2 / 3, 2 / 3]
    cosine_rows = {
        "y = t": (third, third),
        "orthogonal": ([1.0, 0.0, 2.0, 0.0], [0.0, 3.0, 0.0, 4.0]),
        "opposite": (third, [-x for x in third]),
        "cancelling": ([1e3, 1e3, 0.1, 0.3], [1.0, -1.0, 0.7, 0.9]),
        "one channel": ([0.3], [0.7]),
        "no labels": ([0.3, -2.0], [0.0, 0.0]),
        "infinity without a label": ([INF, 0.3], [0.0, 0.7]),
        "NaN": ([NAN, 0.3], [1.0, 0.7]),
    }
    for name, (y, t) in cosine_rows.items():
        yield "cosine_distance", name, y, t, {}

    quarter = [0.25, 0.25, 0.5]
    softmax_rows: dict[str, tuple[list[float], list[float]]] = {
        "ordinary": ([0.3, -1.2, 2.1, 0.1], [0.0, 1.0, 0.0, 0.0]),
        "y = t": (quarter, quarter),
        "equal logits": ([0.1, 0.1, 0.1], [0.0, 1.0, 0.0]),
        "one channel": ([5.0], [1.0]),
        "no labels": ([1.0, 2.0, 3.0], [0.0, 0.0, 0.0]),
        "labels that do not sum to 1": ([0.3, -1.2, 2.1], [2.0, -1.0, 0.7]),
        "certain and right": ([20.0, 0.0, -1.0], [1.0, 0.0, 0.0]),
        "certain and wrong": ([20.0, 0.0, -1.0], [0.0, 0.0, 1.0]),
        "one ULP apart": ([1.0, above_one], [1.0, 0.0]),
        "far channels": ([16.7, -33.3, 0.1, -60.7], [1.0, 0.0, 0.0, 0.0]),
        "close to a large maximum": ([1000.1, 999.9, 998.7], [0.3, 0.7, 0.0]),
        "37, right": ([37.0, 0.0, -37.0], [1.0, 0.0, 0.0]),
        "37, wrong": ([37.0, 0.0, -37.0], [0.0, 0.0, 1.0]),
        "232.8, right": ([232.8, 0.0, -232.8], [1.0, 0.0, 0.0]),
        "232.8, wrong": ([232.8, 0.0, -232.8], [0.0, 0.0, 1.0]),
        "1e20, right": ([1e20, -1e20, 0.0], [1.0, 0.0, 0.0]),
        "1e20, wrong": ([1e20, -1e20, 0.0], [0.0, 1.0, 0.0]),
        "1e20 twice": ([1e20, 1e20, 0.0], [1.0, 0.0, 0.0]),
        "inexact differences": ([1 / 3, -77.7, 19.1, 5e-8, -0.1], [0.2, 0.1, 0.3, 0.2, 0.2]),
        "inexact and far apart": ([8191.7, 8100.1, 1 / 3, -1e9], [0.0, 1.0, 0.0, 0.0]),
        "about 1e5": ([1e5 + 1 / 3, 1e5 - 7.7, 1e5 - 60.1, 0.1], [0.0, 0.5, 0.5, 0.0]),
        "about -1e5": ([-1e5 + 1 / 3, -1e5 - 7.7, -1e5 - 60.1], [0.0, 0.5, 0.5]),
        "the largest numbers": ([largest, -largest, 0.0], [0.5, 0.0, 0.5]),
        "smallest differences": ([0.0, one_ulp, -one_ulp], [0.0, 0.0, 1.0]),
        "masked": ([0.3, -INF, 1.2, -INF], [0.0, 0.0, 1.0, 0.0]),
        "masked, with a label": ([0.3, -INF, 1.2], [0.5, 0.5, 0.0]),
        "masked but one": ([-INF, 2.0, -INF], [0.0, 1.0, 0.0]),
        "all masked": ([-INF, -INF, -INF], [0.0, 1.0, 0.0]),
        "+inf": ([0.0, INF, 1.0], [1.0, 0.0, 0.5]),
        "NaN": ([0.0, NAN, 1.0], [1.0, 0.0, 0.5]),
        "-inf and NaN": ([-INF, NAN], [0.0, 1.0]),
    }
    for name, (y, t) in softmax_rows.items():
        yield "softmax_cross_entropy", name, y, t, {}
        if name not in ("the largest numbers", "+inf", "NaN", "-inf and NaN", "all masked"):
            smoothed = {"label_smoothing": 0.1, "number_of_classes": 7}
            yield "softmax_cross_entropy", f"{name}, smoothed", y, t, smoothed


def rounded(x: float, dtype: str) -> float:
    return float(struct.unpack("<f", struct.pack("<f", x))[0]) if dtype == "float32" else float(x)


def hexadecimal(x: float) -> str:
    return re.sub(r"\.?0*p", "p", x.hex())


def decimal(x: Number) -> str:
    if mpmath.isnan(x):
        return "nan"
    if mpmath.isinf(x):
        return "inf" if x > 0 else "-inf"
    return str(mpmath.nstr(x, 25))


def build() -> list[dict[str, object]]:
    cases: list[dict[str, object]] = []
    for dtype in ("float32", "float64"):
        for loss_type, name, ys, ts, given in points(dtype):
            y, t = [rounded(x, dtype) for x in ys], [rounded(x, dtype) for x in ts]
            properties = {**DEFAULTS, "number_of_classes": len(y), **given}
            exact = {key: mpf(value) for key, value in properties.items()}
            loss, d_y, d_t = FORMULAS[loss_type](list(map(mpf, y)), list(map(mpf, t)), exact)
            cases.append(
                {
                    "loss_type": loss_type,
                    "name": name,
                    "dtype": dtype,
                    "properties": properties,
                    "predictions": [hexadecimal(x) for x in y],
                    "labels": [hexadecimal(x) for x in t],
                    "loss": [decimal(x) for x in loss],
                    "d_predictions": [decimal(x) for x in d_y],
                    "d_labels": [decimal(x) for x in d_t],
                }
            )
    return cases


def main() -> None:
    lines = ",\n".join(json.dumps(case) for case in build())
    OUTPUT.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
