"""Apple's objects through messages: images, command buffers, kernels and their encodes.

Nothing stands between a mistake and the process.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import mpsnn_loss as ml
from mpsnn_loss._conformance import objective_c as objc
from mpsnn_loss._conformance.judging import Record, absent
from mpsnn_loss._conformance.problems import Problem, Values, Wanted

FORWARD = (
    "encodeBatchToCommandBuffer:sourceImages:labels:weights:destinationStates:destinationImages:"
)
RETURNING = "encodeBatchToCommandBuffer:sourceGradients:sourceImages:labels:weights:sourceStates:"
GRADIENT = RETURNING + "destinationGradients:"
COMPLETED = 4  # MTLCommandBufferStatus
FORMATS = {"float16": 3, "float32": 4}  # MPSImageFeatureChannelFormat


@dataclass(frozen=True)
class Images:
    """The images of one batch, which live as long as the autorelease pool."""

    pointers: list[int]
    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def make(cls, device: ml.Device, shape: tuple[int, ...], dtype: str) -> Images:
        n, height, width, channels = shape
        descriptor = objc.send(
            objc.class_named("MPSImageDescriptor"),
            "imageDescriptorWithChannelFormat:width:height:featureChannels:",
            FORMATS[dtype],
            width,
            height,
            channels,
        )
        pointers = []
        for _ in range(n):
            image = objc.send(objc.class_named("MPSImage"), "alloc")
            image = objc.send(
                image, "initWithDevice:imageDescriptor:", device.objc_pointer, descriptor
            )
            pointers.append(objc.send(image, "autorelease"))
        return cls(pointers, shape, dtype)

    @classmethod
    def of(cls, device: ml.Device, array: Values) -> Images:
        images = cls.make(device, array.shape, array.dtype.name)
        for image, values in zip(images.pointers, np.ascontiguousarray(array), strict=True):
            data = values.ctypes.data
            objc.send(image, "writeBytes:dataLayout:imageIndex:", data, 0, 0, returns=None)
        return images

    @property
    def batch(self) -> int:
        return objc.array_of(self.pointers)

    def values(self) -> Values:
        values = np.empty(self.shape, self.dtype)
        for image, place in zip(self.pointers, values, strict=True):
            data = place.ctypes.data
            objc.send(image, "readBytes:dataLayout:imageIndex:", data, 0, 0, returns=None)
        return values


@dataclass(frozen=True)
class Buffer:
    """A command buffer of Metal."""

    pointer: int

    @classmethod
    def of(cls, queue: ml.CommandQueue) -> Buffer:
        return cls(objc.send(queue.objc_pointer or 0, "commandBuffer"))

    def run(self, *written: int) -> None:
        """Makes the written images readable, commits and waits."""
        for image in written:
            objc.send(image, "synchronizeOnCommandBuffer:", self.pointer, returns=None)
        objc.send(self.pointer, "commit", returns=None)
        objc.send(self.pointer, "waitUntilCompleted", returns=None)
        status = objc.send(self.pointer, "status")
        if status != COMPLETED:
            failure = ml.DeviceError(f"the command buffer ended with status {status}")
            failure.nserror = objc.error_of_buffer(self.pointer)  # type: ignore[attr-defined]
            raise failure


def raw_descriptor(problem: Problem) -> int:
    """An MPSCNNLossDescriptor with the values of the problem, autoreleased."""
    theirs = problem.descriptor
    numbers = (int(theirs.loss_type), int(theirs.reduction_type))
    kind = objc.class_named("MPSCNNLossDescriptor")
    descriptor: int = objc.send(kind, "cnnLossDescriptorWithType:reductionType:", *numbers)
    for name, value in problem.values.items():
        first, *rest = name.split("_")
        setter = f"set{first.title()}{''.join(rest).title()}:"
        objc.send(descriptor, setter, ctypes.c_float(value), returns=None)
    objc.send(descriptor, "setNumberOfClasses:", problem.number_of_classes, returns=None)
    return descriptor


def with_messages(device: ml.Device, problem: Problem, _: Wanted) -> dict[str, Values]:
    """The loss and the gradient by the predictions, in images of our own."""
    arrays = (problem.predictions, problem.labels, problem.source_gradients)
    y, t, g = (Images.of(device, each) for each in arrays)
    v = None if problem.weights is None else Images.of(device, problem.weights)
    shape = problem.predictions.shape
    loss_shape = shape if problem.reduction == "none" else (shape[0], 1, 1, 1)
    loss = Images.make(device, loss_shape, "float32")
    gradient = Images.make(device, shape, y.dtype)
    forward_kernel = ml.MPSNNForwardLoss(device, problem.descriptor)
    gradient_kernel = ml.MPSNNLossGradient(device, problem.descriptor)
    queue = device.make_command_queue()
    buffer = Buffer.of(queue)
    weights = v.batch if v else 0
    objc.send(forward_kernel.objc_pointer or 0, FORWARD, buffer.pointer,
              y.batch, t.batch, weights, 0, loss.batch, returns=None)  # fmt: skip
    objc.send(gradient_kernel.objc_pointer or 0, GRADIENT, buffer.pointer,
              g.batch, y.batch, t.batch, weights, 0, gradient.batch, returns=None)  # fmt: skip
    buffer.run(*loss.pointers, *gradient.pointers)
    return {"loss": loss.values(), "predictions": gradient.values()}


def only_with_objects(run: Callable[[ml.Device], Record], device: ml.Device) -> Record:
    """Absent where the device has no Objective-C objects, or they lack what is asked of them."""
    if device.objc_pointer is None:
        return {"results": [absent("Objective-C", f"{device.kind} has no Objective-C objects")]}
    try:
        with objc.autorelease_pool():
            return run(device)
    except (LookupError, OSError) as error:
        return {"results": [absent("Objective-C", str(error))]}
