"""A call, how it is drawn, and what the package and the reference make of it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import mpsnn_loss as ml
import numpy as np
from mpsnn_loss._reference.calls import WITHOUT_DIVISOR, Call, make_call
from mpsnn_loss._reference.formulas import LOSSES, Array

WITH_INDICES = ("softmax_cross_entropy", "categorical_cross_entropy")
REDUCTIONS = (*WITHOUT_DIVISOR, "mean", "sum_by_non_zero_weights", "mean_by_weights")
COMPUTE = {"float16": "float32", "float32": "float32", "float64": "float64"}
WEIGHTS = ("weights", "sample_weight", "class_weight")
SPECIAL = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.5, 1e38, -1e38, 3e38, 1e19, 65504.0,
           -65504.0, 1e-38, -1e-38, 1e-20, 1e-40, -1e-44, 1e-50, 88.0, -88.0, 104.0, 700.0,
           )  # fmt: skip


@dataclass(frozen=True)
class Case:
    """Arrays [N, H, W, C] (indices: without C), and the other arguments, where they are not the
    default. `axis` is where the call has the channels; the batch comes first of the others."""

    loss_type: str
    predictions: np.ndarray
    labels: np.ndarray  # like the predictions, or class indices
    weights: np.ndarray | None = None
    source_gradient: np.ndarray | None = None  # (), [N] or like the predictions
    reduction: str = "sum"
    reduce_across_batch: bool = True
    wrt: str = "predictions"
    weight: float = 1.0
    label_smoothing: float = 0.0
    number_of_classes: int | None = None
    epsilon: float = 1e-7
    delta: float = 1.0
    ignore_index: int | None = None
    sample_weight: np.ndarray | None = None  # [N] or [N, H, W]
    class_weight: np.ndarray | None = None  # [C]
    divisor: float | None = None
    axis: int = 3

    @property
    def dtype(self) -> str:
        return self.predictions.dtype.name

    @property
    def has_indices(self) -> bool:
        return self.labels.ndim < self.predictions.ndim

    def arguments(self, *names: str) -> dict[str, Any]:
        """All fields but the named ones."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in names}

    def called(self) -> dict[str, Any]:
        """The arguments, with the channels where `axis` says."""

        def moved(value: Any) -> Any:
            is_full = isinstance(value, np.ndarray) and value.ndim == 4
            return np.ascontiguousarray(np.moveaxis(value, 3, self.axis)) if is_full else value

        return {name: moved(value) for name, value in self.arguments().items()}

    def results(self) -> dict[str, np.ndarray]:
        """What the package answers, by separate calls and by the fused ones."""
        by_predictions = {**self.called(), "device": ml.cpu_device()}
        wrt = by_predictions.pop("wrt")
        alone = {k: v for k, v in by_predictions.items() if k != "source_gradient"}
        fused = ml.loss_and_gradient(**by_predictions, wrt=wrt)
        named = {
            "loss": ml.loss(**alone),
            "gradient": ml.loss_gradient(**by_predictions, wrt=wrt),
            "fused loss": fused[0],
            "fused gradient": fused[1],
        }
        if wrt == "predictions":
            gradient, named["hessian"] = ml.loss_gradient_and_hessian(**by_predictions)
            named["gradient with hessian"] = gradient
        arrays = {name: np.asarray(value) for name, value in named.items()}
        return {k: np.moveaxis(v, self.axis, 3) if v.ndim == 4 else v for k, v in arrays.items()}

    @cached_property
    def reference(self) -> Call:
        """The call of the reference, on the values that the contract computes with."""
        labels = self.labels
        named = {name: getattr(self, name) for name in WEIGHTS}
        narrow = {
            name: None if array is None else self.narrowed(array, is_weight=True)
            for name, array in named.items()
        }
        if self.has_indices:
            indices = labels[..., None]
            labels = indices == np.arange(self.predictions.shape[-1])
            kept = (indices != self.ignore_index) | (self.ignore_index is None)
            given = 1.0 if narrow["weights"] is None else narrow["weights"]
            narrow["weights"] = np.where(kept, given, 0.0)
        names = ("source_gradient", "wrt", "ignore_index", "axis", "labels", "predictions")
        arguments = self.arguments(*names, *WEIGHTS)
        return make_call(self.predictions, self.narrowed(labels), **narrow, **arguments)

    @property
    def g(self) -> Array | float:
        return 1.0 if self.source_gradient is None else self.narrowed(self.source_gradient)

    def narrowed(self, array: np.ndarray, is_weight: bool = False) -> Array:
        """Rounded to the type of the computation; but a weight that is not 0 never becomes 0."""
        compute = np.dtype(COMPUTE[self.dtype])
        if np.ndim(array) == 0 and not is_weight:
            return np.asarray(array, np.float64)  # scalars stay float64
        with np.errstate(all="ignore"):
            narrow = np.asarray(array).astype(compute)
        if is_weight:
            smallest = np.copysign(np.finfo(compute).smallest_subnormal, array).astype(compute)
            narrow = np.where((narrow == 0) & (array != 0), smallest, narrow)
        return narrow.astype(np.float64)

    def __str__(self) -> str:
        """A call that can be pasted."""
        written = [
            f"{k}={write(v)}"
            for k, v in self.called().items()
            if k != "reduction" and not is_default(k, v)
        ]
        written.append(f"reduction={self.reduction!r}")
        return "ml.loss_and_gradient(" + ", ".join(written) + ")"


DEFAULTS = {f.name: f.default for f in fields(Case)}


def is_default(name: str, value: Any) -> bool:
    return not isinstance(value, np.ndarray) and value == DEFAULTS[name]


def write(value: Any) -> str:
    if not isinstance(value, np.ndarray):
        return repr(value)
    text = repr(value.tolist()).replace("nan", "np.nan").replace("inf", "np.inf")
    return f"np.array({text}, np.{value.dtype.name})"


def draw(rng: np.random.Generator) -> Case:
    """A call whose arrays hold a few of the special values among ordinary ones."""
    loss_type = str(rng.choice(list(LOSSES)))
    dtype = str(rng.choice(["float16", "float32", "float32", "float64"]))
    shape = tuple(int(n) for n in (rng.integers(1, 4), rng.integers(1, 3), rng.integers(1, 3),
                                   rng.choice([1, 2, 3, 5, 17, 40])))  # fmt: skip
    per_pixel = LOSSES[loss_type].per_pixel
    reduction = "sum" if per_pixel else str(rng.choice(REDUCTIONS))
    across = bool(rng.integers(2))
    specials = rng.choice(SPECIAL, rng.integers(1, 4))
    share = float(rng.choice([0.0, 0.1, 0.5, 0.9]))

    def mixed(values: Any, stored: str) -> np.ndarray:
        values = np.array(values, np.float64)
        is_special = rng.random(values.shape) < share * rng.integers(2)
        with np.errstate(all="ignore"):
            return np.where(is_special, rng.choice(specials, values.shape), values).astype(stored)

    y, t = LOSSES[loss_type].inputs(rng, shape)
    labels = mixed(t, dtype if rng.integers(5) else "float64")
    ignore_index = None
    with_indices = loss_type in WITH_INDICES and bool(rng.integers(2))
    if with_indices:
        labels = rng.integers(0, shape[-1], shape[:-1])
        ignore_index = [None, 0, -100][rng.integers(3)]
        if ignore_index == -100:
            labels[rng.random(labels.shape) < 0.3] = -100
    kept = [n if rng.integers(2) else 1 for n in shape]
    kept[-1] = 1 if per_pixel else kept[-1]
    compute = COMPUTE[dtype]
    stored = compute if rng.integers(3) else "float64"
    weights = mixed(rng.uniform(0.5, 2, kept) * (rng.random(kept) > 0.2), stored)
    g_shape = shape if reduction == "none" else () if across else shape[:1]
    g = mixed(rng.normal(0, 1, g_shape if rng.integers(3) else ()), compute)
    smooths = LOSSES[loss_type].smoothing_level is not None

    def named_weights(shape: tuple[int, ...]) -> np.ndarray | None:
        # Powers of two, so that their products are exact where they stay in the range.
        return rng.choice([1.0, 0.5, 0.25, 2.0, -1.0, 0.0], shape) if rng.integers(3) == 0 else None

    divisor = (
        float(rng.choice([1.0, 7.0, -0.5, 0.0, 1e-40, 1e38])) if rng.integers(4) == 0 else None
    )
    divisor = None if reduction in WITHOUT_DIVISOR else divisor
    # A divisor of weighted labels depends on them.
    fixed = with_indices or (
        reduction == "mean_by_weights" and LOSSES[loss_type].weighs_labels and divisor is None
    )
    return Case(
        loss_type, mixed(y, dtype), labels,
        weights if rng.integers(2) else None,
        g if rng.integers(2) else None,
        reduction, across,
        "labels" if rng.integers(3) == 0 and not fixed else "predictions",
        weight=float(rng.choice([1.0, 1.0, -0.7, 0.0, 1e-40, 1e30, 1e40])),
        label_smoothing=float(rng.choice([0.0, 0.1, 1.0, 1e-10])) if smooths else 0.0,
        number_of_classes=[None, 7][rng.integers(2)],
        epsilon=float(rng.choice([1e-7, 0.0, 1e-3, 1e-50, 1e30])),
        delta=float(rng.choice([1.0, 1e-30, 1e-3, 1e19, 3e38])),
        ignore_index=ignore_index,
        sample_weight=named_weights(shape[:1] if rng.integers(2) else shape[:3]),
        class_weight=None if per_pixel else named_weights(shape[3:]),
        divisor=divisor,
        axis=[0, 1, 2, 3, 3, 3][rng.integers(6)],
    )  # fmt: skip


def with_arrays(case: Case, **arrays: Any) -> Case:
    return replace(case, **arrays)
