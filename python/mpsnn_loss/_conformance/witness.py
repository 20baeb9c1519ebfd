"""MPSCNNLoss, Apple's older kernel of the same losses, on the inputs of the other cases.

It computes the loss and the gradient in one encode, without source gradients: a second witness of
how Apple reads its own header. That the two differ is a finding, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

import mpsnn_loss as ml
from mpsnn_loss._conformance import objective_c as objc
from mpsnn_loss._conformance.case import USUAL, Case, solve
from mpsnn_loss._conformance.inputs import plain
from mpsnn_loss._conformance.problems import Problem, Values, Wanted
from mpsnn_loss._conformance.raw_objects import (
    Buffer,
    Images,
    only_with_objects,
    raw_descriptor,
)
from mpsnn_loss._conformance.rows import LOSS_TYPES, full_weights, reductions_of

ENCODE = "encodeBatchToCommandBuffer:sourceImages:labels:destinationImages:"
DATA = "cnnLossDataDescriptorWithData:layout:size:"
LABELS = "initWithDevice:lossImageSize:labelsDescriptor:weightsDescriptor:"
ROWS_OF_PIXELS = 0  # MPSDataLayoutHeightxWidthxFeatureChannels


def data_descriptor(values: Values) -> int:
    """An MPSCNNLossDataDescriptor of one image, autoreleased."""
    values = np.ascontiguousarray(values, np.float32)
    height, width, channels = values.shape
    data = objc.send(
        objc.class_named("NSData"), "dataWithBytes:length:", values.ctypes.data, values.nbytes
    )
    size = objc.Size(width, height, channels)
    kind = objc.class_named("MPSCNNLossDataDescriptor")
    return int(objc.send(kind, DATA, data, ROWS_OF_PIXELS, size))


def labels_of(device: ml.Device, problem: Problem, image: int) -> int:
    """The MPSCNNLossLabels of one image, autoreleased."""
    v = problem.weights
    _, height, width, channels = problem.predictions.shape
    size = objc.Size(width, height, channels) if problem.reduction == "none" else objc.Size(1, 1, 1)
    fresh = objc.send(objc.class_named("MPSCNNLossLabels"), "alloc")
    labels = data_descriptor(problem.labels[image])
    weights = 0 if v is None else data_descriptor(v[image])
    made = objc.send(fresh, LABELS, device.objc_pointer, size, labels, weights)
    return int(objc.send(made, "autorelease"))


def loss_kernel(device: ml.Device, problem: Problem) -> int:
    """An MPSCNNLoss, autoreleased."""
    fresh = objc.send(objc.class_named("MPSCNNLoss"), "alloc")
    name = "initWithDevice:lossDescriptor:"
    made = objc.send(fresh, name, device.objc_pointer, raw_descriptor(problem))
    return int(objc.send(made, "autorelease"))


def with_witness(device: ml.Device, problem: Problem, _: Wanted) -> dict[str, Values]:
    kernel = loss_kernel(device, problem)
    y = Images.of(device, problem.predictions)
    labels = [labels_of(device, problem, i) for i in range(len(problem.predictions))]
    gradient = Images.make(device, problem.predictions.shape, "float32")
    queue = device.make_command_queue()
    buffer = Buffer.of(queue)
    objc.send(kernel, ENCODE, buffer.pointer, y.batch, objc.array_of(labels), gradient.batch,
              returns=None)  # fmt: skip
    shape = (1, 1, 1) if problem.reduction != "none" else problem.predictions.shape[1:]
    losses = [objc.send(each, "lossImage") for each in labels]
    loss = Images(losses, (len(losses), *shape), format_of(losses[0]))
    buffer.run(*loss.pointers, *gradient.pointers)
    return {"loss": loss.values(), "predictions": gradient.values()}


def format_of(image: int) -> str:
    return {3: "float16", 4: "float32"}[objc.send(image, "featureChannelFormat")]


def witness() -> Iterator[Case]:
    for loss_type in LOSS_TYPES:
        for reduction in reductions_of(loss_type):
            given: dict[str, Any] = {"label_smoothing": 0.25, "epsilon": 2.0**-10, "delta": 0.75}
            if reduction == "sum_by_non_zero_weights":
                given["weights"] = full_weights(loss_type)
            problem = plain(loss_type, reduction, **given)
            run = partial(solve, problem, {"MPSCNNLoss": with_witness}, USUAL)
            yield Case(f"witness/{loss_type}/{reduction}", partial(only_with_objects, run),
                       problem=problem, group="witness")  # fmt: skip
