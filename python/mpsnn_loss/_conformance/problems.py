"""A call of a loss: what a device is asked, what the reference is asked, and how it is recorded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

import mpsnn_loss as ml
from mpsnn_loss._conformance import objective_c as objc
from mpsnn_loss._reference.formulas import LOSSES

Values = NDArray[Any]
Wanted = tuple[str, ...]  # of "loss", "predictions" and "labels"
PROPERTIES = ("weight", "label_smoothing", "epsilon", "delta")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Arrays are [N, H, W, C] in the storage type of the images; weights broadcast."""

    loss_type: str
    predictions: Values
    labels: Values
    source_gradients: Values  # [N, 1, 1, 1] or like the predictions
    weights: Values | None = None
    reduction: str = "sum"
    reduce_across_batch: bool = False
    weight: float = 1.0
    label_smoothing: float = 0.0
    number_of_classes: int = 1
    epsilon: float = 1e-7
    delta: float = 1.0
    # The gradient kernel's own weight, label_smoothing, epsilon and delta where a state carries the
    # values above to it.
    own_values: tuple[float, float, float, float] | None = None

    @property
    def descriptor(self) -> ml.MPSCNNLossDescriptor:
        return ml.MPSCNNLossDescriptor(
            self.loss_type,
            self.reduction,
            reduce_across_batch=self.reduce_across_batch,
            number_of_classes=self.number_of_classes,
            **self.values,
        )

    @property
    def values(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in PROPERTIES}

    @property
    def across(self) -> bool:
        return self.reduce_across_batch and self.reduction != "none"

    def to_json(self) -> dict[str, Any]:
        return {
            name: array_to_json(value) if isinstance(value, np.ndarray) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Problem:
        known = {field.name for field in fields(cls)}
        values: dict[str, Any] = {
            name: array_from_json(value) if isinstance(value, dict) else value
            for name, value in record.items()
            if name in known
        }
        if values.get("own_values") is not None:
            values["own_values"] = tuple(values["own_values"])
        return cls(**values)


def array_to_json(array: Values) -> dict[str, Any]:
    """The bits of an array: little-endian, in hexadecimal."""
    array = np.asarray(array)
    stored = array.astype(array.dtype.newbyteorder("<"))
    return {"dtype": array.dtype.name, "shape": list(array.shape), "hex": stored.tobytes().hex()}


def array_from_json(record: dict[str, Any]) -> Values:
    stored = np.frombuffer(
        bytes.fromhex(record["hex"]), np.dtype(record["dtype"]).newbyteorder("<")
    )
    values: Values = stored.astype(record["dtype"])
    return np.reshape(values, record["shape"])


# --- How a device is asked; each answers with the arrays that are wanted ---


@contextmanager
def telling(buffer: ml.CommandBuffer) -> Iterator[None]:
    """Runs the buffer; where that fails, the exception carries what Metal's own error says."""
    try:
        with buffer:
            yield
    except ml.DeviceError as error:
        pointer = buffer.objc_pointer
        if pointer is not None:
            error.nserror = objc.error_of_buffer(pointer)  # type: ignore[attr-defined]
        raise


def with_kernels(device: ml.Device, problem: Problem, wanted: Wanted) -> dict[str, Values]:
    """The user's kernels on a command buffer; with states where the problem has own values."""
    v = None if problem.weights is None else np.ascontiguousarray(problem.weights)
    y, t, g = problem.predictions, problem.labels, problem.source_gradients
    forward = ml.MPSNNForwardLoss(device, problem.descriptor)
    gradient = ml.MPSNNLossGradient(device, problem.descriptor)
    states = None
    if problem.own_values is not None:
        states = forward.result_state_batch(y)
        for name, value in zip(PROPERTIES, problem.own_values, strict=True):
            setattr(gradient, name, value)
    results = {}
    buffer = device.make_command_queue().make_command_buffer()
    with telling(buffer):
        if "loss" in wanted or states is not None:  # the forward loss fills the states
            results["loss"] = forward.encode_batch(buffer, y, t, v, destination_states=states)
        for wrt in ("predictions", "labels"):
            if wrt in wanted:
                gradient.compute_label_gradients = wrt == "labels"
                results[wrt] = gradient.encode_batch(buffer, g, y, t, v, states)
    return {name: batch.to_array() for name, batch in results.items() if name in wanted}


def with_functions(device: ml.Device, problem: Problem, wanted: Wanted) -> dict[str, Values]:
    """The functions on arrays, which refuse to smooth labels that the loss leaves alone."""
    smooths = LOSSES[problem.loss_type].smoothing_level is not None
    g = problem.source_gradients
    if problem.reduction == "none":
        g = np.broadcast_to(g, problem.predictions.shape)
    elif g.shape == (len(g), 1, 1, 1):
        g = g[0, 0, 0, 0] if problem.across else g.reshape(-1)
    arguments: dict[str, Any] = {
        "predictions": problem.predictions,
        "labels": problem.labels,
        "loss_type": problem.loss_type,
        "reduction": problem.reduction,
        "reduce_across_batch": problem.reduce_across_batch,
        "weights": problem.weights,
        "number_of_classes": problem.number_of_classes,
        "device": device,
        **problem.values,
        "label_smoothing": problem.label_smoothing if smooths else 0.0,
    }
    return {
        name: np.asarray(ml.loss(**arguments))
        if name == "loss"
        else ml.loss_gradient(**arguments, source_gradient=g, wrt=name)  # type: ignore[arg-type]
        for name in wanted
    }


def with_one_image_repeated(device: ml.Device, problem: Problem, _: Wanted) -> dict[str, Values]:
    """The kernels on batches that hold the first image N times: one object, N pointers."""
    n = len(problem.predictions)

    def repeated(array: Values) -> list[ml.MPSImage]:
        return n * [ml.MPSImageBatch.from_array(device, np.ascontiguousarray(array[:1]))[0]]

    y, t, g = map(repeated, (problem.predictions, problem.labels, problem.source_gradients))
    v = None if problem.weights is None else repeated(problem.weights)
    forward = ml.MPSNNForwardLoss(device, problem.descriptor)
    gradient = ml.MPSNNLossGradient(device, problem.descriptor)
    buffer = device.make_command_queue().make_command_buffer()
    with telling(buffer):
        loss = forward.encode_batch(buffer, y, t, v)
        predictions = gradient.encode_batch(buffer, g, y, t, v)
    return {"loss": loss.to_array(), "predictions": predictions.to_array()}
