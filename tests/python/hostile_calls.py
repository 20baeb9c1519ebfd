"""Every public callable with arguments that are right.

A new argument is attacked by being added to a call here; a new property of a class needs nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import mpsnn_loss as ml
import numpy as np

SHAPE = (2, 1, 1, 3)
FLAT = (2, 3)
DEVICE = ml.cpu_device()


@dataclass(frozen=True)
class Call:
    """A public callable as in the stub, and arguments for it, fresh each time."""

    name: str
    call: Callable[..., Any]
    arguments: Callable[[], dict[str, Any]]
    variant: str = ""  # the same callable with arguments of other types

    def __str__(self) -> str:
        return f"{self.name}{f' ({self.variant})' if self.variant else ''}"


@cache
def values(shape: tuple[int, ...], start: float) -> np.ndarray:
    count = int(np.prod(shape))
    return np.linspace(start, start + 0.8, count, dtype=np.float32).reshape(shape)


def array(shape: tuple[int, ...] = SHAPE, start: float = 0.1) -> np.ndarray:
    return values(shape, start).copy()


def descriptor() -> ml.MPSCNNLossDescriptor:
    return ml.MPSCNNLossDescriptor("sigmoid_cross_entropy", "sum")


def image_descriptor() -> ml.MPSImageDescriptor:
    return ml.MPSImageDescriptor(width=1, height=1, feature_channels=3)


def batch(shape: tuple[int, ...] = SHAPE, start: float = 0.1) -> ml.MPSImageBatch:
    return ml.MPSImageBatch.from_array(DEVICE, array(shape, start))


def buffer() -> ml.CommandBuffer:
    return DEVICE.make_command_queue().make_command_buffer()


def committed() -> ml.CommandBuffer:
    made = buffer()
    made.commit()
    return made


# --- The calls ---


def settings() -> dict[str, Any]:
    return {"loss_type": "sigmoid_cross_entropy", "reduction": "sum", "weight": 1.5,
            "label_smoothing": 0.25, "number_of_classes": 3, "epsilon": 1e-3, "delta": 2.0,
            "reduce_across_batch": True, "device": DEVICE}  # fmt: skip


def function_arguments(*names: str) -> dict[str, Any]:
    arrays: dict[str, Any] = {"predictions": array(FLAT), "labels": array(FLAT, 0.05),
                              "weights": array(FLAT, 0.3)}  # fmt: skip
    more = {"source_gradient": np.array(0.5, np.float32), "wrt": "predictions"}
    return {**arrays, **settings(), **{k: v for k, v in more.items() if k in names}}


def functions() -> Iterator[Call]:
    gradient = ("source_gradient", "wrt")
    none = {"reduction": "none"}
    for function, names in ((ml.loss, ()), (ml.loss_gradient, gradient),
                            (ml.loss_and_gradient, gradient)):  # fmt: skip
        name = function.__name__
        yield Call(name, function, lambda n=names: function_arguments(*n) | {
            "out": np.full(() if not n else FLAT, 7, np.float32)}, "reduced")  # fmt: skip
        yield Call(name, function, lambda n=names: function_arguments(*n) | none | {
            "out": np.full(FLAT, 7, np.float32),
            **({"source_gradient": array(FLAT, 0.2)} if n else {})}, "not reduced")  # fmt: skip
        yield Call(name, function, lambda n=names: {
            k: memoryview(v) if isinstance(v, np.ndarray) and v.ndim else v
            for k, v in function_arguments(*n).items()}, "memoryviews")  # fmt: skip
        yield Call(name, function, lambda n=names: function_arguments(*n) | {
            "predictions": array(FLAT).tolist(), "labels": array(FLAT, 0.05).tolist(),
            "weights": array(FLAT, 0.3).tolist()}, "lists")  # fmt: skip
        yield Call(name, function, lambda n=names: {
            k: v for k, v in function_arguments(*n).items() if k != "wrt"} | {
            "loss_type": 2, "reduction": 2, "labels": np.array([0, 2]), "ignore_index": 0},
            "class indices")  # fmt: skip
    yield Call("loss_and_gradient", ml.loss_and_gradient, lambda: function_arguments(*gradient) | {
        "out": np.full(FLAT, 7, np.float32), "loss_out": np.full((), 7, np.float32)},
        "both destinations")  # fmt: skip
    for function, names in ((ml.loss, ()), (ml.loss_gradient, gradient),
                            (ml.loss_and_gradient, gradient)):  # fmt: skip
        yield Call(
            function.__name__,
            function,
            lambda n=names: function_arguments(*n) | more_weights(),
            "more weights",
        )
    yield Call("loss_gradient_and_hessian", ml.loss_gradient_and_hessian, lambda: (
        function_arguments("source_gradient") | more_weights() | {
            "out": np.full(FLAT, 7, np.float32),
            "hessian_out": np.full(FLAT, 7, np.float32)}))  # fmt: skip
    yield Call("loss_gradient_and_hessian", ml.loss_gradient_and_hessian, lambda: {
        "predictions": array(FLAT), "labels": np.array([0, 2]), "loss_type": 2, "ignore_index": 0},
        "class indices")  # fmt: skip
    yield Call("reduction_divisor", ml.reduction_divisor, lambda: {
        "predictions": array(FLAT), "labels": np.array([0, 2]), "loss_type": 2,
        "reduction": "mean_by_weights", "weights": array(FLAT, 0.3), "ignore_index": 1, "axis": -1,
        "sample_weight": array((2,), 0.4), "class_weight": array((3,), 0.5)})  # fmt: skip


def more_weights() -> dict[str, Any]:
    """What came after the other arguments."""
    return {"reduction": "mean", "axis": 1, "sample_weight": array((2,), 0.4),
            "class_weight": array((3,), 0.5), "divisor": 2.0}  # fmt: skip


def images() -> dict[str, Any]:
    return {"source_images": array(), "labels": array(start=0.05), "weights": array(start=0.3)}


def kernels() -> Iterator[Call]:
    """Encoding into a buffer that is then run, and calling directly."""

    def encode(kernel: Any) -> Callable[..., Any]:
        def call(**a: Any) -> Any:
            result = kernel.encode_batch(**a)
            a["command_buffer"].commit()
            a["command_buffer"].wait_until_completed(60)
            return result.to_array()

        return call

    gradient = ml.MPSNNLossGradient(DEVICE, descriptor())
    forward = ml.MPSNNForwardLoss(DEVICE, descriptor())
    initial = ml.MPSNNInitialGradient(DEVICE)
    g = (2, 1, 1, 1)

    def filled() -> Any:
        states = forward.result_state_batch(array())
        encode(forward)(command_buffer=buffer(), source_images=array(), labels=array(),
                        destination_states=states)  # fmt: skip
        return states

    for variant, of in (("arrays", lambda a: a), ("memoryviews", memoryview),
                        ("batches", lambda a: ml.MPSImageBatch.from_array(DEVICE, a)),
                        ("lists", lambda a: list(ml.MPSImageBatch.from_array(DEVICE, a))),
                        ):  # fmt: skip

        def operands(of: Any = of) -> dict[str, Any]:
            return {"command_buffer": buffer(), **{k: of(v) for k, v in images().items()}}

        yield Call("MPSNNLossGradient.encode_batch", encode(gradient), lambda o=operands, of=of: {
            **o(), "source_gradients": of(array(g)), "source_states": filled(),
            "destination_gradients": of(array()), "allocator": None}, variant)  # fmt: skip
        yield Call("MPSNNForwardLoss.encode_batch", encode(forward), lambda o=operands, of=of: {
            **o(), "destination_states": forward.result_state_batch(array()),
            "destination_images": of(array(g)), "allocator": None}, variant)  # fmt: skip
        yield Call("MPSNNInitialGradient.encode_batch", encode(initial), lambda of=of: {
            "command_buffer": buffer(), "source_images": of(array()), "allocator": None},
            variant)  # fmt: skip
        yield Call("MPSNNForwardLoss.result_state_batch", forward.result_state_batch,
                   lambda of=of: {"source_images": of(array())}, variant)  # fmt: skip
    yield Call("MPSNNLossGradient.__call__", gradient, lambda: {
        "predictions": array(), "labels": array(start=0.05), "source_gradient": array(g),
        "weights": array(start=0.3), "out": array()})  # fmt: skip
    yield Call("MPSNNLossGradient.__call__", gradient, lambda: {
        "predictions": memoryview(array()), "labels": memoryview(array(start=0.05)),
        "source_gradient": 0.5}, "memoryviews")  # fmt: skip
    yield Call("MPSNNForwardLoss.__call__", forward, lambda: {
        "predictions": array(), "labels": array(start=0.05), "weights": array(start=0.3),
        "out": array(g)})  # fmt: skip


def objects() -> Iterator[Call]:
    def waiting(timeout: Any) -> None:
        committed().wait_until_completed(timeout)

    yield Call("set_num_threads", ml.set_num_threads, lambda: {"n": 1})
    yield Call("Device.supports", DEVICE.supports, lambda: {"x": "float32"})
    yield Call("Device.supports", DEVICE.supports, lambda: {"x": descriptor()}, "descriptor")
    yield Call("Device.make_command_queue", DEVICE.make_command_queue, lambda: {"label": "a"})
    yield Call("CommandQueue.make_command_buffer", DEVICE.make_command_queue().make_command_buffer,
               lambda: {"label": "a"})  # fmt: skip
    for kind in (ml.Device, ml.CommandQueue, ml.CommandBuffer, ml.MPSImage, ml.MPSImageBatch):
        yield Call(f"{kind.__name__}.from_objc_pointer", kind.from_objc_pointer,
                   lambda: {"pointer": 0})  # fmt: skip
    yield Call("CommandBuffer.wait_until_completed", waiting, lambda: {"timeout": 60.0})
    yield Call("CommandBuffer.add_completed_handler", lambda handler: buffer()
               .add_completed_handler(handler), lambda: {"handler": print})  # fmt: skip
    yield Call("MPSCNNLossDescriptor.__init__", ml.MPSCNNLossDescriptor, lambda: {
        "loss_type": 6, "reduction_type": "sum", "reduce_across_batch": True, "weight": 1.5,
        "label_smoothing": 0.25, "number_of_classes": 3, "epsilon": 1e-3,
        "delta": 2.0})  # fmt: skip
    yield Call("MPSImageDescriptor.__init__", ml.MPSImageDescriptor, lambda: {
        "channel_format": "float32", "width": 1, "height": 2, "feature_channels": 3})  # fmt: skip
    yield Call("MPSImage.__init__", ml.MPSImage, lambda: {
        "device": DEVICE, "descriptor": image_descriptor()})  # fmt: skip
    yield Call("MPSImage.read_bytes", batch()[0].read_bytes, lambda: {
        "data_layout": 1, "image_index": 0})  # fmt: skip
    yield Call("MPSImage.write_bytes", batch()[0].write_bytes, lambda: {
        "data": bytearray(12), "data_layout": 1, "image_index": 0})  # fmt: skip
    yield Call("MPSImage.write_bytes", batch()[0].write_bytes, lambda: {
        "data": array((3,)), "data_layout": 0, "image_index": 0}, "array")  # fmt: skip
    yield Call("MPSImageBatch.from_array", ml.MPSImageBatch.from_array, lambda: {
        "device": DEVICE, "array": array()})  # fmt: skip
    yield Call("MPSImageBatch.to_array", batch().to_array, lambda: {"out": array()})
    yield Call("MPSImageBatch.__getitem__", lambda index: batch()[index], lambda: {"index": 1})
    for images in (batch(), batch()[0]):
        name = type(images).__name__
        yield Call(f"{name}.__array__", images.__array__, lambda: {
            "dtype": np.dtype(np.float64), "copy": True})  # fmt: skip
        yield Call(f"{name}.__dlpack__", images.__dlpack__, lambda: {
            "stream": None, "max_version": (1, 0), "dl_device": (1, 0), "copy": True})  # fmt: skip
    yield Call("MPSImageBatch.__contains__", lambda image: image in batch(),
               lambda: {"image": batch()[0]})  # fmt: skip
    yield Call("MPSImageBatch.index", batch().index, lambda: {"value": batch()[0]})
    yield Call("MPSImageBatch.count", batch().count, lambda: {"value": batch()[0]})
    for kind, arguments in ((ml.MPSNNForwardLoss, (descriptor(),)), (ml.MPSNNInitialGradient, ()),
                            (ml.MPSNNLossGradient, (descriptor(),))):  # fmt: skip
        kernel, name = kind(DEVICE, *arguments), kind.__name__
        yield Call(f"{name}.__init__", kind, lambda a=arguments: {
            "device": DEVICE, **({"loss_descriptor": a[0]} if a else {})})  # fmt: skip
        yield Call(f"{name}.copy", kernel.copy, lambda: {"device": DEVICE})
        for method, data in (("from_bytes", kernel.to_bytes()),
                             ("from_archived_data", kernel.to_bytes())):  # fmt: skip
            yield Call(f"{name}.{method}", getattr(kind, method),
                       lambda d=data: {"data": bytearray(d), "device": DEVICE})  # fmt: skip


def properties() -> Iterator[Call]:
    """Each property that can be set, of each class, with the value that it has."""
    instances = (descriptor(), image_descriptor(), batch()[0], *made_kernels(),
                 ml.MPSNNForwardLoss(DEVICE, descriptor()).result_state_batch(array())[0],
                 )  # fmt: skip
    for instance in instances:
        for name, member in inspect.getmembers(type(instance)):
            if isinstance(member, property) and member.fset is not None:
                yield Call(f"{type(instance).__name__}.{name}",
                           lambda o=instance, n=name, **a: setattr(o, n, *a.values()),
                           lambda o=instance, n=name: {n: getattr(o, n)})  # fmt: skip


def made_kernels() -> tuple[Any, ...]:
    return (ml.MPSNNForwardLoss(DEVICE, descriptor()), ml.MPSNNLossGradient(DEVICE, descriptor()),
            ml.MPSNNInitialGradient(DEVICE))  # fmt: skip


GROUPS: dict[str, Callable[[], list[Call]]] = {
    **{n: lambda n=n: [c for c in functions() if c.name == n]
       for n in ("loss", "loss_gradient", "loss_and_gradient", "loss_gradient_and_hessian",
                 "reduction_divisor")},
    **{f"kernels with {v}": lambda v=v: [c for c in kernels() if c.variant == v]
       for v in ("arrays", "memoryviews", "batches", "lists")},
    "kernel calls": lambda: [c for c in kernels() if not c.variant],
    "objects": lambda: list(objects()),
    "properties": lambda: list(properties()),
}  # fmt: skip
