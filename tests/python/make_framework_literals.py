"""Writes framework_literals.json: what other libraries make of weights, by the names they have.

    pip install torch scikit-learn keras
    KERAS_BACKEND=torch python tests/python/make_framework_literals.py

A case says which library was asked, how exact its answer is, and the call of this package that must
give the same. Arrays are hex floats, as computed in float64.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

OUTPUT = Path(__file__).with_name("framework_literals.json")
SHAPES = [(5, 4), (2, 3, 2, 2)]  # channels are axis 1
Case = dict[str, Any]


def logits(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 2, shape)


def classes(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(2).integers(0, shape[1], (shape[0], *shape[2:]))


def class_weight(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(3).uniform(0.2, 3, shape[1])


def softmax(y: np.ndarray, axis: int) -> np.ndarray:
    e = np.exp(y - y.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def written(value: Any) -> Any:
    """Floats as hex, at any depth of lists."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list):
        return [written(each) for each in value]
    return value.hex() if isinstance(value, float) else value


def case(source: str, loss: float, gradient: np.ndarray | None = None, **call: Any) -> Case:
    results = {"loss": float(loss)} | ({} if gradient is None else {"gradient": gradient})
    return {
        "source": source,
        "relative_error": 1e-7 if source.startswith("keras") else 1e-12,  # it rounds to float32
        "call": {key: written(value) for key, value in call.items()},
        "results": {key: written(value) for key, value in results.items()},
    }


def cross_entropies() -> Iterator[Case]:
    """torch: class weights, ignored indices and smoothing; the mean divides by what is weighted."""
    import torch
    from torch.nn.functional import cross_entropy, nll_loss

    for shape, weighted, ignore_index, smoothing in product(
        SHAPES, (False, True), (None, -100, 1), (0.0, 0.1, 1.0)
    ):
        t = classes(shape)
        if ignore_index == -100:
            t[np.random.default_rng(4).random(t.shape) < 0.4] = -100
        v = class_weight(shape) if weighted else None
        options: dict[str, Any] = {"weight": None if v is None else torch.tensor(v)}
        options |= {} if ignore_index is None else {"ignore_index": ignore_index}
        call = {
            "labels": t,
            "axis": 1,
            "reduction": "mean_by_weights",
            "class_weight": v,
            "ignore_index": ignore_index,
        }
        y = torch.tensor(logits(shape), requires_grad=True)
        loss = cross_entropy(y, torch.tensor(t), label_smoothing=smoothing, **options)
        loss.backward()
        yield case(
            "torch cross_entropy", loss.item(), y.grad.numpy(), predictions=logits(shape),
            loss_type="softmax_cross_entropy", label_smoothing=smoothing, **call)  # fmt: skip
        if smoothing == 0:
            p = softmax(logits(shape), axis=1)
            y = torch.tensor(p, requires_grad=True)
            loss = nll_loss(torch.log(y), torch.tensor(t), **options)
            loss.backward()
            yield case(
                "torch nll_loss", loss.item(), y.grad.numpy(), predictions=p,
                loss_type="categorical_cross_entropy", **call)  # fmt: skip


def sample_weights_of_keras() -> Iterator[Case]:
    """Its two means: over all samples, and over the sum of their weights."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    keras.config.set_floatx("float64")
    shape = (5, 4)
    y, w = logits(shape), np.array([0.5, 2.0, 0.0, 1.25, 3.0])
    one_hot = np.eye(4)[classes(shape)]
    real = np.random.default_rng(5).normal(0, 2, shape)
    losses = [
        ("mean_squared_error", keras.losses.MeanSquaredError, real, {}),
        ("mean_absolute_error", keras.losses.MeanAbsoluteError, real, {}),
        ("huber", keras.losses.Huber, real, {}),
        ("sigmoid_cross_entropy", keras.losses.BinaryCrossentropy, one_hot, {"from_logits": True}),
        ("softmax_cross_entropy", keras.losses.CategoricalCrossentropy, one_hot,
         {"from_logits": True}),
        ("hinge", keras.losses.Hinge, one_hot, {}),
    ]  # fmt: skip
    reductions = {"sum_over_batch_size": "mean", "mean_with_sample_weight": "mean_by_weights"}
    for (name, made, t, options), (theirs, ours) in product(losses, reductions.items()):
        loss = float(made(reduction=theirs, dtype="float64", **options)(t, y, sample_weight=w))
        yield case(f"keras {made.__name__} {theirs}", loss, predictions=y, labels=t,
                   loss_type=name, reduction=ours, sample_weight=w)  # fmt: skip


def sample_weights_of_scikit_learn() -> Iterator[Case]:
    from sklearn.metrics import log_loss, mean_absolute_error, mean_squared_error

    shape = (5, 4)
    w = np.array([0.5, 2.0, 0.0, 1.25, 3.0])
    p, t = softmax(logits(shape), axis=1), classes(shape)
    for normalize, reduction in ((True, "mean_by_weights"), (False, "sum")):
        loss = log_loss(t, p, sample_weight=w, labels=range(4), normalize=normalize)
        yield case("scikit-learn log_loss", loss, predictions=p, labels=t, reduction=reduction,
                   loss_type="categorical_cross_entropy", sample_weight=w)  # fmt: skip
    y, real = logits(shape), np.random.default_rng(5).normal(0, 2, shape)
    for metric in (mean_squared_error, mean_absolute_error):
        loss = metric(real, y, sample_weight=w)
        yield case(f"scikit-learn {metric.__name__}", loss, predictions=y, labels=real,
                   loss_type=metric.__name__, reduction="mean_by_weights",
                   sample_weight=w)  # fmt: skip


def main() -> None:
    makers = (cross_entropies, sample_weights_of_keras, sample_weights_of_scikit_learn)
    lines = ",\n".join(json.dumps(made) for maker in makers for made in maker())
    OUTPUT.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
