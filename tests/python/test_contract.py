"""Every device against the reference, in every cell of docs/contract.md, sections 2 to 5.

A cell is a loss, a reduction, a shape of weights, with and without smoothing and the sum across the
batch, for one dtype. Tests walk over many cells; the tally of them is in the terminal summary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any

import mpsnn_loss as ml
import numpy as np
import pytest
from reference import losses

if TYPE_CHECKING:
    from conftest import Tally

SHAPE = (2, 3, 2, 5)
WRT = ("predictions", "labels")
ALL_REDUCTIONS = [member.name.lower() for member in ml.MPSCNNReductionType]
PROPERTIES = {"weight": 0.7, "number_of_classes": 7, "epsilon": 1e-3, "delta": 1.3}

# What the weights look like: the shape, as axes that are kept, and where they are 0.
WEIGHTS = {
    "none": None,
    "per image": (True, False, False, False),
    "per pixel": (True, True, True, False),
    "per class": (False, False, False, True),
    "full": (True, True, True, True),
    "full with zeros": (True, True, True, True),
    "pixels with zeros": (True, True, True, False),
    "an image without weight": (True, False, False, False),
}


def reductions_of(name: str) -> list[str]:
    return ["sum"] if losses.LOSSES[name].per_pixel else ALL_REDUCTIONS


def weights_of(name: str) -> list[str]:
    """A loss per pixel has weights without a channel axis."""
    per_pixel = losses.LOSSES[name].per_pixel
    return [kind for kind, axes in WEIGHTS.items() if not (per_pixel and axes and axes[3])]


def make_weights(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> Any:
    axes = WEIGHTS[kind]
    if axes is None:
        return None
    kept = tuple(n if keep else 1 for n, keep in zip(shape, axes, strict=True))
    values = rng.uniform(0.5, 2, kept)
    if kind == "full with zeros":
        values[rng.random(kept) < 0.3] = 0
        values[0, 0, 0] = 0
    elif kind == "pixels with zeros":
        values[rng.random(kept) < 0.3] = 0
    elif kind == "an image without weight":
        values[0] = 0
    return values


@dataclass(frozen=True)
class Problem:
    """The arrays and properties of one cell, for an engine and for the reference."""

    loss_type: str
    predictions: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | None
    source_gradient: np.ndarray  # a scalar, [N] or like the predictions
    reduction: str
    across: bool
    smoothing: float = 0.0
    ignore_index: int | None = None

    @property
    def dtype(self) -> str:
        return self.predictions.dtype.name

    @property
    def has_class_indices(self) -> bool:
        return self.labels.ndim < self.predictions.ndim

    @property
    def properties(self) -> dict[str, Any]:
        return {**PROPERTIES, "label_smoothing": self.smoothing}

    @property
    def reduces(self) -> bool:
        return self.reduction != "none"

    @cached_property
    def reference(self) -> losses.Call:
        labels, weights = self.labels, self.weights
        if self.has_class_indices:  # one-hot labels, and a weight of 0 where they are ignored
            indices = labels[..., None].astype(np.int64)
            labels = indices == np.arange(self.predictions.shape[-1])
            kept = (indices != self.ignore_index) | (self.ignore_index is None)
            weights = kept * (1.0 if weights is None else weights.astype(np.float64))
        return losses.make_call(
            self.predictions,
            labels,
            self.loss_type,
            reduction=self.reduction,
            reduce_across_batch=self.across,
            weights=weights,
            **self.properties,
        )

    @property
    def arguments(self) -> dict[str, Any]:
        """For the one-call functions, which refuse to smooth labels that the loss leaves alone."""
        smooths = losses.LOSSES[self.loss_type].smoothing_level is not None
        return {
            "predictions": self.predictions,
            "labels": self.labels,
            "loss_type": self.loss_type,
            "reduction": self.reduction,
            "reduce_across_batch": self.across,
            "weights": self.weights,
            "ignore_index": self.ignore_index,
            **self.properties,
            "label_smoothing": self.smoothing if smooths else 0.0,
        }

    @property
    def descriptor(self) -> ml.MPSCNNLossDescriptor:
        return ml.MPSCNNLossDescriptor(
            self.loss_type, self.reduction, reduce_across_batch=self.across, **self.properties
        )

    def __str__(self) -> str:
        weights = "no weights" if self.weights is None else f"weights {self.weights.shape}"
        across = " across the batch" if self.across and self.reduces else ""
        return (
            f"{self.loss_type} {self.predictions.shape}, {self.reduction}{across}, {weights}, "
            f"source gradient {self.source_gradient.shape}, smoothing {self.smoothing}"
        )


def arrays(name: str, dtype: str, shape: tuple[int, ...], seed: int) -> tuple[Any, Any]:
    y, t = losses.LOSSES[name].inputs(np.random.default_rng(seed), shape)
    return y.astype(dtype), t.astype(dtype)


def compute_type(dtype: str) -> str:
    return "float64" if dtype == "float64" else "float32"


def cells(name: str, dtype: str) -> Iterator[Problem]:
    """Each with one source gradient per image or element, and with a single one."""
    y, t = arrays(name, dtype, SHAPE, seed=0)
    combinations = product(reductions_of(name), (False, True), (0.0, 0.15), weights_of(name))
    for seed, (reduction, across, smoothing, kind) in enumerate(combinations):
        rng = np.random.default_rng(seed)
        weights = make_weights(rng, kind, SHAPE)
        if reduction == "none":
            g_shape: tuple[int, ...] = SHAPE
        else:
            g_shape = () if across else SHAPE[:1]
        for shape in dict.fromkeys([g_shape, ()]):
            g = rng.normal(0, 1, shape)
            yield Problem(
                name,
                y,
                t,
                None if weights is None else weights.astype(dtype),
                np.asarray(g, compute_type(dtype)),
                reduction,
                across,
                smoothing,
            )


class Comparison:
    """Compares results of one problem with its reference and adds them to the tally."""

    def __init__(self, problem: Problem, tally: Tally) -> None:
        self.problem = problem
        self.tally = tally
        self._gradients: dict[str, tuple[losses.Array, losses.Array]] = {}

    @cached_property
    def _forward(self) -> tuple[losses.Array, losses.Array]:
        call = self.problem.reference
        return call.forward(), losses.forward_bound(call, self.problem.dtype)

    def loss(self, actual: Any, how: str) -> None:
        """`actual` like the predictions; one value per image, [N] or [N, 1, 1, 1]; or a scalar."""
        problem, result = self.problem, np.asarray(actual)
        what = f"{how}, loss of {problem}"
        assert result.dtype == compute_type(problem.dtype), what
        value, bound = self._forward
        if problem.reduces and result.ndim == 0:
            value, bound = value[0], bound[0]
        elif problem.reduces:
            value, bound = value.reshape(result.shape), bound.reshape(result.shape)
        self._add(result, value, bound, what)

    def gradient(self, actual: Any, wrt: str, how: str, dtype: str | None = None) -> None:
        problem, result = self.problem, np.asarray(actual)
        what = f"{how}, gradient with respect to {wrt} of {problem}"
        assert result.dtype == (dtype or problem.dtype), what
        if wrt not in self._gradients:
            call, g = problem.reference, problem.source_gradient
            value = call.gradient(source_gradient=g, wrt=wrt)
            bound = losses.gradient_bound(call, problem.dtype, source_gradient=g, wrt=wrt)
            self._gradients[wrt] = value, bound
        self._add(result, *self._gradients[wrt], what)

    def _add(self, result: Any, value: losses.Array, bound: losses.Array, what: str) -> None:
        error = losses.assert_within(result, value, bound, what)
        self.tally.add(result.dtype.name, error, self.problem.loss_type)


def check_functions(device: ml.Device, problem: Problem, tally: Tally) -> None:
    """The three one-call functions."""
    comparison = Comparison(problem, tally)
    arguments = {**problem.arguments, "device": device}
    gradient_arguments = {**arguments, "source_gradient": problem.source_gradient}
    comparison.loss(ml.loss(**arguments), "loss()")
    for wrt in WRT[:1] if problem.has_class_indices else WRT:
        gradient = ml.loss_gradient(**gradient_arguments, wrt=wrt)
        comparison.gradient(gradient, wrt, "loss_gradient()")
        loss, gradient = ml.loss_and_gradient(**gradient_arguments, wrt=wrt)
        comparison.loss(loss, "loss_and_gradient()")
        comparison.gradient(gradient, wrt, "loss_and_gradient()")


def as_image_batch(problem: Problem) -> np.ndarray:
    """The source gradients of a kernel: N images. Across the batch, only image 0 may count."""
    g = problem.source_gradient
    n = len(problem.predictions)
    if g.ndim == 4:
        return g
    batch = np.array(np.broadcast_to(g, n)).reshape(n, 1, 1, 1)
    if problem.reduces and problem.across:
        batch[1:] = np.nan
    return batch


def check_kernels(
    queue: ml.CommandQueue, device: ml.Device, problem: Problem, tally: Tally
) -> None:
    """The two kernels on a command buffer; the gradients also with the states of the forward loss.

    With states, the gradient kernel has other values of its own, which must not count.
    """
    y, t, v = problem.predictions, problem.labels, problem.weights
    g = as_image_batch(problem)
    forward = ml.MPSNNForwardLoss(device, problem.descriptor)
    own = ml.MPSNNLossGradient(device, problem.descriptor)
    other = ml.MPSNNLossGradient(device, problem.descriptor)
    other.weight, other.label_smoothing, other.epsilon, other.delta = 5.0, 0.5, 0.1, 0.2
    results: list[tuple[str, str, Any]] = []
    with queue.make_command_buffer() as buffer:
        states = forward.result_state_batch(y)
        loss = forward.encode_batch(buffer, y, t, v, destination_states=states)
        for wrt in WRT:
            own.compute_label_gradients = other.compute_label_gradients = wrt == "labels"
            results.append((wrt, "kernel", own.encode_batch(buffer, g, y, t, v)))
            gradient = other.encode_batch(buffer, g, y, t, v, source_states=states)
            results.append((wrt, "kernel with states", gradient))
    comparison = Comparison(problem, tally)
    comparison.loss(loss.to_array(), "kernel")
    for wrt, how, batch in results:
        comparison.gradient(batch.to_array(), wrt, how, (t if wrt == "labels" else y).dtype.name)


def supported(device: ml.Device, problems: Iterable[Problem]) -> Iterator[Problem]:
    """Those the device supports; where it supports none, the test is skipped with its words."""
    any_supported, reason = False, ""
    for problem in problems:
        if problem.reduction in reductions_of(problem.loss_type):
            is_supported, why_not = device.supports(problem.descriptor)
            any_supported, reason = any_supported or is_supported, reason or why_not
            if is_supported:
                yield problem
    if not any_supported:
        pytest.skip(reason)


def test_functions_in_every_cell(
    device: ml.Device, loss_type: ml.MPSCNNLossType, dtype: str, tally: Tally
) -> None:
    for problem in supported(device, cells(loss_type.name.lower(), dtype)):
        check_functions(device, problem, tally)


def test_kernels_in_every_cell(
    device: ml.Device, loss_type: ml.MPSCNNLossType, dtype: str, tally: Tally
) -> None:
    queue = device.make_command_queue()
    for problem in supported(device, cells(loss_type.name.lower(), dtype)):
        check_kernels(queue, device, problem, tally)


def test_mixed_float16_and_float32(
    device: ml.Device, loss_type: ml.MPSCNNLossType, tally: Tally
) -> None:
    """Each argument may have either; a gradient has the format of what it is the gradient of."""
    queue = device.make_command_queue()
    name = loss_type.name.lower()
    y, t = arrays(name, "float16", SHAPE, seed=1)
    weights = make_weights(np.random.default_rng(2), "pixels with zeros", SHAPE).astype("float16")
    for formats in product(("float16", "float32"), repeat=4):
        given = (y, t, weights, np.array([0.5, -1.25]))
        mixed = [array.astype(dtype) for array, dtype in zip(given, formats, strict=True)]
        for problem in supported(device, [Problem(name, *mixed, "sum", across=False)]):
            check_kernels(queue, device, problem, tally)


def drawn_problem(name: str, dtype: str, shape: tuple[int, ...], seed: int) -> Problem:
    """A cell drawn at random."""
    rng = np.random.default_rng(seed)
    y, t = arrays(name, dtype, shape, seed)
    reduction, across = str(rng.choice(reductions_of(name))), bool(rng.integers(2))
    weights = make_weights(rng, str(rng.choice(weights_of(name))), shape)
    g = rng.normal(0, 1, shape if reduction == "none" else () if across else shape[:1])
    return Problem(
        name,
        y,
        t,
        None if weights is None else weights.astype(dtype),
        np.asarray(g, compute_type(dtype)),
        reduction,
        across,
        float(rng.choice([0.0, 0.1])),
    )


SMALL_SIZES = [(3, 1, 2, channels) for channels in (1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 65)]
LARGE_SIZES = [
    (2, 1, 3, 1000),
    (2, 1, 1, 1023),
    (1, 1, 2, 1025),
    (1, 1, 1, 2500),
    (2, 10, 10, 500),
    (3, 1, 33335, 1),
    (1, 7, 4763, 3),
]


def test_functions_at_every_size(
    device: ml.Device, loss_type: ml.MPSCNNLossType, dtype: str, tally: Tally
) -> None:
    """Short rows, rows and images that fill no vector and no tile evenly, and 100 000 elements."""
    name = loss_type.name.lower()
    drawn = [
        *(drawn_problem(name, dtype, shape, seed) for shape in SMALL_SIZES for seed in range(5)),
        *(drawn_problem(name, dtype, shape, seed) for shape in LARGE_SIZES for seed in range(2)),
    ]
    for problem in supported(device, drawn):
        check_functions(device, problem, tally)


@pytest.mark.parametrize("name", ["softmax_cross_entropy", "categorical_cross_entropy"])
def test_class_indices_in_every_cell(
    device: ml.Device, name: str, dtype: str, tally: Tally
) -> None:
    """Class indices are one-hot labels; an ignored pixel has weight 0."""
    rng = np.random.default_rng(4)
    y, _ = arrays(name, dtype, SHAPE, seed=3)
    indices = rng.integers(0, SHAPE[3], SHAPE[:3])
    some_out_of_range = np.where(rng.random(indices.shape) < 0.4, 255, indices)
    choices = [
        *((indices.astype(t), None) for t in ("int64", "int32", "uint8", ">i2")),
        (indices, 3),
        *((some_out_of_range.astype(t), 255) for t in ("int64", "uint8")),
        (np.full_like(indices, -1), -1),
    ]
    kinds = ("none", "per class", "full with zeros")
    problems = [
        Problem(
            name,
            y,
            labels,
            None if weights is None else weights.astype(dtype),
            np.asarray(-0.75, compute_type(dtype)),
            reduction,
            across,
            smoothing,
            ignore_index,
        )
        for reduction, across, smoothing, kind in product(
            ALL_REDUCTIONS, (False, True), (0.0, 0.15), kinds
        )
        for labels, ignore_index in choices
        for weights in [make_weights(np.random.default_rng(5), kind, SHAPE)]
    ]
    for problem in supported(device, problems):
        check_functions(device, problem, tally)


# Rare enough that some rows and images stay ordinary.
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, 37.0, -104.0, 0.25, 2.0, -3.0, np.inf, -np.inf, np.nan]


def test_zero_nan_and_infinity(
    device: ml.Device, loss_type: ml.MPSCNNLossType, dtype: str, tally: Tally
) -> None:
    """What is exactly 0, what is NaN, and that neither spreads further than it must."""
    name = loss_type.name.lower()
    shape = (200, 1, 2, 4)
    rng = np.random.default_rng(6)
    y = rng.choice(SPECIAL, shape).astype(dtype)
    t = rng.choice([*3 * [0.0, 0.0, 1.0, 0.25], np.nan], shape).astype(dtype)
    v_shape = (*shape[:3], 1) if losses.LOSSES[name].per_pixel else shape
    v = rng.choice([0.0, 1.0, 2.0], v_shape).astype(dtype)
    v[::5] = 0
    g = np.asarray(1.0, compute_type(dtype))
    problems = [
        Problem(name, y, t, weights, g, reduction, across=False)
        for reduction in reductions_of(name)
        for weights in (None, v)
    ]
    for problem in supported(device, problems):
        check_functions(device, problem, tally)


def test_each_image_can_have_its_own_state(
    device: ml.Device, loss_type: ml.MPSCNNLossType, tally: Tally
) -> None:
    name = loss_type.name.lower()
    y, t = arrays(name, "float32", SHAPE, seed=7)
    g = np.array([0.5, -1.25], np.float32)
    plain = Problem(name, y, t, None, g, reductions_of(name)[-1], across=False)
    other = {"weight": 2.5, "label_smoothing": 0.3, "epsilon": 0.05, "delta": 0.4}
    for _ in supported(device, [plain]):
        kernels = [ml.MPSNNForwardLoss(device, plain.descriptor) for _ in range(2)]
        for key, value in other.items():
            setattr(kernels[1], key, value)
        with device.make_command_queue().make_command_buffer() as buffer:
            states = [kernel.result_state_batch(y) for kernel in kernels]
            for forward, batch in zip(kernels, states, strict=True):
                forward.encode_batch(buffer, y, t, destination_states=batch)
            mixed = [states[0][0], states[1][1]]
            kernel = ml.MPSNNLossGradient(device, plain.descriptor)
            results = {}
            for chosen, given in (((1, 1), [states[1][1]]), ((0, 1), mixed)):
                arguments = (buffer, as_image_batch(plain), y, t, None, given)
                if device.kind == "metal" and len(set(chosen)) > 1:
                    # Apple's kernels take the values of a whole batch.
                    with pytest.raises(ValueError, match="source_states must hold equal values"):
                        kernel.encode_batch(*arguments)
                else:
                    results[chosen] = kernel.encode_batch(*arguments)
        calls = [
            losses.make_call(
                y, t, name, reduction=plain.reduction, reduce_across_batch=False, **properties
            )
            for properties in (plain.properties, {**plain.properties, **other})
        ]
        for chosen, batch in results.items():
            for image, which in enumerate(chosen):
                call = calls[which]
                error = losses.assert_within(
                    batch.to_array()[image],
                    call.gradient(source_gradient=g)[image],
                    losses.gradient_bound(call, "float32", source_gradient=g)[image],
                    f"{name}, image {image} of states {chosen}",
                )
                tally.add("float32", error, name)


def test_properties_are_read_when_a_kernel_is_encoded(
    device: ml.Device, loss_type: ml.MPSCNNLossType
) -> None:
    name = loss_type.name.lower()
    y, t = arrays(name, "float32", SHAPE, seed=8)
    problem = Problem(name, y, t, None, np.array([1, 1], np.float32), "sum", across=False)
    for _ in supported(device, [problem]):
        g = as_image_batch(problem)
        forward = ml.MPSNNForwardLoss(device, problem.descriptor)
        gradient = ml.MPSNNLossGradient(device, problem.descriptor)
        queue = device.make_command_queue()
        results = []
        for change_before_commit in (False, True):
            with queue.make_command_buffer() as buffer:
                results.append(
                    (forward.encode_batch(buffer, y, t), gradient.encode_batch(buffer, g, y, t))
                )
                if change_before_commit:
                    for kernel in (forward, gradient):
                        kernel.weight, kernel.label_smoothing = 5.0, 0.5
                        kernel.epsilon, kernel.delta = 0.1, 0.2
        for before, after in zip(*results, strict=True):
            np.testing.assert_array_equal(before.to_array(), after.to_array())


def test_initial_gradient_is_one_everywhere(device: ml.Device, dtype: str) -> None:
    images = np.full(SHAPE, np.nan, dtype)
    with device.make_command_queue().make_command_buffer() as buffer:
        ones = ml.MPSNNInitialGradient(device).encode_batch(buffer, images)
    np.testing.assert_array_equal(ones.to_array(), np.ones(SHAPE, dtype), strict=True)
