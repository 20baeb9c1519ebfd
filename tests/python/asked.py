"""Calls of the functions as callers make them, with channels on any axis and weights by any name,
and what the reference answers in the same shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

import mpsnn_loss as ml
import numpy as np
import pytest
from reference import losses

NAMES = [member.name.lower() for member in ml.MPSCNNLossType]
WITH_DIVISOR = ["mean", "sum_by_non_zero_weights", "mean_by_weights"]
REDUCTIONS = ["none", "sum", *WITH_DIVISOR]
INDEX_LOSSES = ("softmax_cross_entropy", "categorical_cross_entropy")
PROPERTIES = {"weight": 0.7, "number_of_classes": 7, "epsilon": 1e-3, "delta": 1.3}
# What the reference does not read, or reads by another name.
OF_THE_CALLER = ("predictions", "labels", "axis", "ignore_index", "source_gradient", "wrt")
WEIGHTS = ("weights", "sample_weight", "class_weight")
OPERANDS = ("predictions", "labels", "source_gradient", *WEIGHTS)
# Rank 1 to 5, channels in each place: the shape, and the axis.
LAYOUTS = [
    ((5,), 0),
    ((3, 5), -1),
    ((5, 3), 0),
    ((3, 5, 2), 1),
    ((5, 3, 2, 2), 0),
    ((3, 5, 2, 2), 1),
    ((3, 2, 5, 2), -2),
    ((3, 2, 5, 1, 2), 2),
]
# Of losses that couple channels, Metal's images hold so many.
MOST_CHANNELS_ON_METAL = 8188


def held_by(device: ml.Device, sizes: list[Any]) -> list[Any]:
    """The sizes whose channels fit the images of the device."""
    fits = device.kind != "metal"
    return [(shape, axis) for shape, axis in sizes if fits or shape[axis] <= MOST_CHANNELS_ON_METAL]


LARGE = [((2, 21, 33, 17), 1), ((2, 3, 5, 700), 2), ((130, 2, 3, 4), 0), ((3, 1000, 7), 1)]


def reductions_of(name: str) -> list[str]:
    return ["sum"] if losses.LOSSES[name].per_pixel else REDUCTIONS


def compute_type(dtype: str) -> str:
    return "float64" if dtype == "float64" else "float32"


def in_the_reference(arguments: dict[str, Any]) -> tuple[losses.Layout, losses.Call]:
    """The call on [N, H, W, C], and how its results come back."""
    y, t = np.asarray(arguments["predictions"]), np.asarray(arguments["labels"])
    layout = losses.Layout(y.shape, arguments.get("axis", -1))
    given = {name: arguments.get(name) for name in WEIGHTS}
    for name, laid in (("weights", layout.weights), ("sample_weight", layout.sample_weight)):
        if given[name] is not None:
            given[name] = laid(np.asarray(given[name], np.float64))
    if t.ndim < y.ndim:  # one-hot labels, and a weight of 0 where they are ignored
        ignored = layout.to_pixels(t == arguments.get("ignore_index"))[..., None]
        labels = layout.one_hot(t)
        v = 1.0 if given["weights"] is None else given["weights"]
        given["weights"] = np.where(ignored, 0.0, v)
    else:
        labels = layout.to_images(t)
    others = {k: v for k, v in arguments.items() if k not in (*OF_THE_CALLER, *WEIGHTS)}
    return layout, losses.make_call(layout.to_images(y), labels, **given, **others)


@dataclass(frozen=True)
class Asked:
    """The arguments of a call of `loss_gradient`, without device and destination."""

    arguments: dict[str, Any]

    def having(self, **changes: Any) -> Asked:
        return replace(self, arguments={**self.arguments, **changes})

    def without(self, *names: str) -> Asked:
        return Asked({k: v for k, v in self.arguments.items() if k not in names})

    @property
    def name(self) -> str:
        return str(self.arguments["loss_type"])

    @property
    def dtype(self) -> str:
        return str(self.arguments["predictions"].dtype.name)

    @property
    def layout(self) -> losses.Layout:
        return losses.Layout(self.arguments["predictions"].shape, self.arguments.get("axis", -1))

    @property
    def has_indices(self) -> bool:
        return bool(self.arguments["labels"].ndim < self.arguments["predictions"].ndim)

    @property
    def wrt(self) -> list[str]:
        """What there are gradients with respect to."""
        d_of_labels = (
            self.arguments["reduction"] == "mean_by_weights"
            and losses.LOSSES[self.name].weighs_labels
            and self.arguments.get("divisor") is None
        )
        return ["predictions"] if self.has_indices or d_of_labels else ["predictions", "labels"]

    @cached_property
    def _reference(self) -> tuple[losses.Layout, losses.Call]:
        return in_the_reference(self.arguments)

    @property
    def call(self) -> losses.Call:
        return self._reference[1]

    def expected(self, result: str) -> tuple[losses.Array, losses.Array]:
        """The value and its tolerance; `result` is as in `results`."""
        layout, call = self._reference
        if result == "loss":
            value, bound = call.forward(), losses.forward_bound(call, self.dtype)
            if call.reduction != "none":
                return (value[0], bound[0]) if call.across_batch else (value, bound)
        else:
            g = self.arguments.get("source_gradient")
            g = np.asarray(1.0 if g is None else g, np.float64)
            if call.reduction == "none" and g.ndim:
                g = layout.to_images(g)
            if result == "hessian":
                value = call.hessian(source_gradient=g)
                bound = losses.hessian_bound(call, self.dtype, source_gradient=g)
            else:
                value = call.gradient(source_gradient=g, wrt=result)
                bound = losses.gradient_bound(call, self.dtype, source_gradient=g, wrt=result)
        return layout.from_images(value), layout.from_images(bound)

    def results(self, device: ml.Device) -> dict[str, np.ndarray]:
        """loss, the gradients by predictions and labels, and the Hessian, by one call each."""
        arguments = {**self.arguments, "device": device}
        alone = {k: v for k, v in arguments.items() if k != "source_gradient"}
        results = {"loss": np.asarray(ml.loss(**alone))}
        for wrt in self.wrt:
            results[wrt] = ml.loss_gradient(**arguments, wrt=wrt)
        if device.kind == "cpu":
            results["hessian"] = ml.loss_gradient_and_hessian(**arguments)[1]
        return results

    def fused(self, device: ml.Device) -> dict[str, np.ndarray]:
        """The loss and the gradient by predictions in one call, and again with the Hessian."""
        arguments = {**self.arguments, "device": device}
        loss, gradient = ml.loss_and_gradient(**arguments)
        results = {"loss": np.asarray(loss), "predictions": gradient}
        if device.kind == "cpu":
            gradient, results["hessian"] = ml.loss_gradient_and_hessian(**arguments)
            assert_same_bits({"predictions": gradient}, {"predictions": results["predictions"]})
        return results

    def __str__(self) -> str:
        shown = {
            k: f"{v.dtype}{list(v.shape)}" if isinstance(v, np.ndarray) and v.ndim else v
            for k, v in self.arguments.items()
            if k not in PROPERTIES
        }
        return ", ".join(f"{k}={v}" for k, v in shown.items())


def assert_same_bits(
    actual: dict[str, np.ndarray], expected: dict[str, np.ndarray], what: object = ""
) -> None:
    for key, value in expected.items():
        got = np.asarray(actual[key])
        assert (got.dtype, got.shape) == (value.dtype, value.shape), (key, str(what))
        assert got.tobytes() == np.asarray(value).tobytes(), (key, str(what))


def assert_as_the_reference(asked: Asked, results: dict[str, np.ndarray], tally: Any) -> None:
    for key, actual in results.items():
        what = f"{key} of {asked}"
        stored = compute_type(asked.dtype) if key == "loss" else asked.dtype
        assert actual.dtype.name == stored, what
        error = losses.assert_within(actual, *asked.expected(key), what)
        tally.add(actual.dtype.name, error, asked.name)


# --- Calls of every kind ---


def eighths(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Weights whose products are exact, in any order and in every type."""
    return rng.integers(4, 17, shape) / 8


def with_zeros(rng: np.random.Generator, weights: np.ndarray) -> np.ndarray:
    return np.where(rng.random(weights.shape) < 0.3, 0.0, weights)


def drawn_weights(
    rng: np.random.Generator, kind: str, layout: losses.Layout, per_pixel: bool
) -> dict[str, np.ndarray]:
    """Weights by name; a loss per pixel has none by class."""
    n = layout.images[0]
    if kind == "none":
        return {}
    if kind == "samples":
        return {"sample_weight": eighths(rng, (n,))}
    v_shape = [int(extent if rng.integers(2) else 1) for extent in layout.shape]
    if per_pixel:
        v_shape[layout.axis] = 1
    given = {
        "sample_weight": eighths(rng, layout.pixels),
        "class_weight": eighths(rng, (layout.channels,)),
        "weights": eighths(rng, tuple(v_shape)),
    }
    if kind == "samples and classes":
        del given["weights"]
        given["sample_weight"] = eighths(rng, (n,))
    elif kind == "zeros":
        given = {name: with_zeros(rng, weights) for name, weights in given.items()}
    if per_pixel:
        del given["class_weight"]
    return given


WEIGHT_KINDS = ("none", "samples", "samples and classes", "all", "zeros")


def drawn(
    seed: int,
    name: str,
    dtype: Any,
    where: tuple[tuple[int, ...], int],
    reduction: str,
    across: bool,
    kind: str = "all",
) -> Asked:
    """A call in which the rest is drawn: values, class indices, smoothing, divisor, g."""
    rng = np.random.default_rng(seed)
    shape, axis = where
    layout, formula = losses.Layout(shape, axis), losses.LOSSES[name]
    y, t = (
        np.moveaxis(array, -1, axis).copy()
        for array in formula.inputs(rng, (*layout.pixels, layout.channels))
    )
    compute = compute_type(np.dtype(dtype).name)
    weights = drawn_weights(rng, kind, layout, formula.per_pixel)
    arguments: dict[str, Any] = {
        "predictions": y.astype(dtype),
        "labels": t.astype(dtype),
        "loss_type": name,
        "axis": axis,
        "reduction": reduction,
        "reduce_across_batch": across,
        **PROPERTIES,
        **{key: value.astype(compute) for key, value in weights.items()},
    }
    if name in INDEX_LOSSES and rng.integers(3) == 0:
        arguments["labels"] = rng.integers(0, layout.channels, layout.pixels)
        arguments["ignore_index"] = [None, 1][rng.integers(2)]
    if formula.smoothing_level is not None:
        arguments["label_smoothing"] = float(rng.choice([0.0, 0.15]))
    if reduction in WITH_DIVISOR:
        arguments["divisor"] = [None, None, 2.5, -4.0, 0.0][rng.integers(5)]
    if rng.integers(4):
        g_shape = shape if reduction == "none" else () if across else layout.images[:1]
        arguments["source_gradient"] = rng.normal(0, 1, g_shape).astype(compute)
    return Asked(arguments)


def cells(name: str, dtype: Any) -> Iterator[Asked]:
    """Every axis, reduction and kind of weights by name."""
    combinations = product(LAYOUTS, reductions_of(name), (True, False), WEIGHT_KINDS)
    for seed, (where, reduction, across, kind) in enumerate(combinations):
        yield drawn(seed, name, dtype, where, reduction, across, kind)


def skip_unless_supported(device: ml.Device, name: str, dtype: str = "float32") -> None:
    for need in (ml.MPSCNNLossDescriptor(name, "sum"), dtype):
        supported, reason = device.supports(need)
        if not supported:
            pytest.skip(reason)


# --- The same values in memory of every kind ---


def transposed(array: np.ndarray) -> np.ndarray:
    """The first axis is the innermost, the others are in order: channels first, for [N, C, …]."""
    return np.moveaxis(np.moveaxis(array, 0, -1).copy(), -1, 0)


def backwards(array: np.ndarray) -> np.ndarray:
    flipped = tuple(slice(None, None, -1) for _ in array.shape)
    return np.ascontiguousarray(array[flipped])[flipped]


def sliced(array: np.ndarray) -> np.ndarray:
    """Every second of a longer axis, beside what must not be read or written."""
    nothing = 77 if array.dtype.kind in "iu" else np.nan
    memory = np.full(tuple(2 * n + 1 for n in array.shape), nothing).astype(array.dtype)
    inner = memory[tuple(slice(1, None, 2) for _ in array.shape)]
    inner[...] = array
    return inner


def permuted(array: np.ndarray) -> np.ndarray:
    """Neighbours in memory are neighbours in the middle: no axis is where C order has it."""
    order = [*range(1, array.ndim, 2), *range(0, array.ndim, 2)]
    return np.transpose(np.transpose(array, order).copy(), np.argsort(order))


def byte_swapped(array: np.ndarray) -> np.ndarray:
    return array.astype(array.dtype.newbyteorder())


def unaligned(array: np.ndarray) -> np.ndarray:
    memory = np.zeros(array.nbytes + 1, np.uint8)
    moved = memory[1:].view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved


STRIDED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Fortran": np.asfortranarray,
    "transposed": transposed,
    "backwards": backwards,
    "sliced": sliced,
    "permuted": permuted,
}
COPIED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "byte-swapped": byte_swapped,
    "unaligned": unaligned,
}


def laid_out(asked: Asked, lay: Callable[[str], Callable[[np.ndarray], np.ndarray]]) -> Asked:
    """The same call, each operand as `lay(its name)` lays it."""
    arrays = {
        name: lay(name)(array)
        for name, array in asked.arguments.items()
        if name in OPERANDS and isinstance(array, np.ndarray) and array.ndim
    }
    return asked.having(**arrays)
