"""Every mistake a caller can make raises the right exception, and nothing has been written by then.

A row is (id, mistake, exact exception type, pattern of the words). A mistake is a function of a
`World`, whose arrays, kernels, descriptor and images are then compared with what they were before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import mpsnn_loss as ml
import numpy as np
import pytest
from tested_devices import DEVICES

Row = tuple[str, Callable[["World"], Any], type[BaseException], str]

NAN = float("nan")
INF = float("inf")
SHAPE = (2, 2, 2, 3)
PIXEL = (2, 1, 1, 1)
FLAT = (2, 3)


class World:
    """Valid arguments of every call, of which a mistake replaces one."""

    descriptor = staticmethod(ml.MPSCNNLossDescriptor)

    def __init__(self, device: ml.Device) -> None:
        self.device = device
        self.watched: list[tuple[np.ndarray, bytes]] = []
        values = np.linspace(0.1, 0.9, 24, dtype=np.float32).reshape(SHAPE)
        self.y, self.t, self.v = (self.watch(values * scale) for scale in (1.0, 0.5, 2.0))
        self.g = self.watch(np.ones(PIXEL, np.float32))
        self.p, self.q = (self.watch(values[0, 0] * scale) for scale in (1.0, 0.5))
        self.classes = self.watch(np.array([0, 2], np.int64))
        self.gradient = ml.MPSNNLossGradient(device, self.descriptor("huber", "sum"))
        self.per_element = ml.MPSNNLossGradient(device, self.descriptor("huber", "none"))
        self.cosine = ml.MPSNNLossGradient(device, self.descriptor("cosine_distance", "sum"))
        self.forward = ml.MPSNNForwardLoss(device, self.descriptor("huber", "sum"))
        self.initial = ml.MPSNNInitialGradient(device)
        self.kernels = (self.gradient, self.per_element, self.cosine, self.forward, self.initial)
        self.archives = [kernel.to_bytes() for kernel in self.kernels]
        self.d = self.descriptor("huber", "sum")
        self.images = ml.MPSImageDescriptor(width=2, height=2, feature_channels=3)
        self.batch = ml.MPSImageBatch.from_array(device, self.y)
        self.buffer = device.make_command_queue().make_command_buffer()

    def watch(self, array: np.ndarray) -> np.ndarray:
        self.watched.append((array, array.tobytes()))
        return array

    def new(self, shape: Any = SHAPE, dtype: Any = np.float32) -> np.ndarray:
        """A destination full of sentinels."""
        return self.watch(np.full(shape, -7.25).astype(dtype))

    def frozen(self, shape: Any) -> np.ndarray:
        array = self.new(shape)
        array.flags.writeable = False
        return array

    def strided(self, shape: Any) -> np.ndarray:
        return self.new((*shape, 2))[..., 0]

    def over_itself(self, shape: Any) -> np.ndarray:
        strides = (*(8,) * (len(shape) - 1), 0)
        return np.lib.stride_tricks.as_strided(self.new(32), shape, strides)

    def unaligned(self, shape: Any) -> np.ndarray:
        memory = self.watch(np.zeros(4 * int(np.prod(shape)) + 1, np.uint8))
        return memory[1:].view(np.float32).reshape(shape)

    @property
    def foreign(self) -> ml.Device:
        others = [device for device in DEVICES if device.name != self.device.name]
        if not others:
            pytest.skip("mixing devices needs two devices, and only the CPU engine is here")
        return others[-1]

    @property
    def done(self) -> ml.CommandBuffer:
        buffer = self.device.make_command_queue().make_command_buffer()
        buffer.commit()
        buffer.wait_until_completed(timeout=60)
        return buffer

    @property
    def discarded(self) -> ml.CommandBuffer:
        buffer = self.device.make_command_queue().make_command_buffer()
        with pytest.raises(KeyError), buffer:
            raise KeyError
        return buffer

    def encode(self, kernel: Any = None, **changes: Any) -> Any:
        arguments = {"command_buffer": self.buffer, "source_gradients": self.g}
        arguments |= {"source_images": self.y, "labels": self.t, "weights": self.v} | changes
        return (kernel or self.gradient).encode_batch(**arguments)

    def encode_forward(self, kernel: Any = None, **changes: Any) -> Any:
        arguments = {"command_buffer": self.buffer, "source_images": self.y, "labels": self.t}
        return (kernel or self.forward).encode_batch(**arguments | {"weights": self.v} | changes)

    def call(self, kernel: Any = None, **changes: Any) -> Any:
        return (kernel or self.gradient)(**{"predictions": self.y, "labels": self.t} | changes)

    def call_forward(self, **changes: Any) -> Any:
        return self.call(self.forward, **changes)

    def function(self, function: Any, **changes: Any) -> Any:
        arguments = {"predictions": self.p, "labels": self.q, "loss_type": "huber"}
        return function(**arguments | {"device": self.device} | changes)

    def loss(self, **changes: Any) -> Any:
        return self.function(ml.loss, **changes)

    def slope(self, **changes: Any) -> Any:
        return self.function(ml.loss_gradient, **changes)

    def both(self, **changes: Any) -> Any:
        return self.function(ml.loss_and_gradient, **changes)

    def curved(self, **changes: Any) -> Any:
        if self.device.kind != "cpu":
            pytest.skip("the CPU engine alone has a Hessian")
        return self.function(ml.loss_gradient_and_hessian, **changes)

    def divisor(self, **changes: Any) -> Any:
        arguments = {"predictions": self.p, "labels": self.q, "loss_type": "huber"}
        return ml.reduction_divisor(**arguments | changes)

    def indices(self, labels: Any, **changes: Any) -> Any:
        """Class indices, with destinations that must stay as they are."""
        changes = {"out": self.new(FLAT), "loss_out": self.new((), np.float32)} | changes
        return self.both(labels=labels, loss_type="softmax_cross_entropy", **changes)

    def states(self) -> list[ml.MPSState]:
        return self.forward.result_state_batch(self.batch)

    def changed(self, kernel: Any, name: str, value: Any) -> Any:
        kernel = kernel.copy()
        setattr(kernel, name, value)
        return kernel

    def check_untouched(self) -> None:
        if self.buffer.status == ml.CommandBufferStatus.NOT_ENQUEUED:
            self.buffer.commit()
            self.buffer.wait_until_completed(timeout=60)
        assert all(array.tobytes() == before for array, before in self.watched)
        assert [kernel.to_bytes() for kernel in self.kernels] == self.archives
        assert self.d == self.descriptor("huber", "sum")
        assert self.batch.to_array().tobytes() == self.y.tobytes()


def assign(owner: str, name: str, value: Any) -> Callable[[World], None]:
    return lambda w: setattr(getattr(w, owner), name, value)


def must(name: str, given: object = "") -> str:
    return f"^{name} must .*{re.escape(str(given))}"


def shapes(name: str, expected: Any, given: Any) -> str:
    return must(name, expected) + f".*got .*{re.escape(str(given))}"


# fmt: off
QUEUES: list[Row] = [
    ("queue label", lambda w: w.device.make_command_queue(label=3), TypeError, "label"),
    ("supports None", lambda w: w.device.supports(None), TypeError, ""),
    ("supports an object", lambda w: w.device.supports(object()), TypeError, ""),
    ("no threads", lambda w: ml.set_num_threads(0), ValueError, must(r"n\w*", 0)),
    ("-1 threads", lambda w: ml.set_num_threads(-1), ValueError, must(r"n\w*", -1)),
    ("1.5 threads", lambda w: ml.set_num_threads(1.5), TypeError, r"\bn"),
    ("threads as text", lambda w: ml.set_num_threads("2"), TypeError, r"\bn"),
    ("commit twice", lambda w: w.done.commit(), RuntimeError, "commit"),
    ("commit discarded", lambda w: w.discarded.commit(), RuntimeError, "discard"),
    ("uncommitted", lambda w: w.buffer.wait_until_completed(timeout=5), RuntimeError, "commit"),
    ("wait discarded", lambda w: w.discarded.wait_until_completed(timeout=5), RuntimeError, ""),
    ("timeout -1", lambda w: w.done.wait_until_completed(timeout=-1), ValueError,
     must("timeout", -1)),
    ("timeout text", lambda w: w.done.wait_until_completed(timeout="1"), TypeError, "timeout"),
    ("late handler", lambda w: w.done.add_completed_handler(print), RuntimeError, "commit"),
    ("handler None", lambda w: w.buffer.add_completed_handler(None), TypeError, ""),
    ("handler 3", lambda w: w.buffer.add_completed_handler(3), TypeError, ""),
    ("gradient when done", lambda w: w.encode(command_buffer=w.done), RuntimeError, "commit"),
    ("forward done", lambda w: w.encode_forward(command_buffer=w.done), RuntimeError, "commit"),
    ("initial when done", lambda w: w.initial.encode_batch(w.done, w.y), RuntimeError, "commit"),
    ("discarded", lambda w: w.encode(command_buffer=w.discarded), RuntimeError, "discard"),
    ("foreign buffer", lambda w: w.encode(
        command_buffer=w.foreign.make_command_queue().make_command_buffer()), RuntimeError,
     "device"),
    ("foreign images", lambda w: w.encode(
        labels=ml.MPSImageBatch.from_array(w.foreign, w.t)), RuntimeError, "^labels .*device"),
    ("foreign states", lambda w: w.encode(
        source_states=World(w.foreign).states()), RuntimeError, "source_states"),
    ("surrogate in a label", lambda w: w.device.make_command_queue(label="\udc80"), ValueError,
     must("label")),
    ("buffer label", lambda w: w.device.make_command_queue().make_command_buffer(label=3),
     TypeError, "label"),
]

# Values that a property refuses wherever it is set: (name, value, exception).
PARAMETERS: list[tuple[str, Any, type[BaseException]]] = [
    *(("weight", v, ValueError) for v in (NAN, INF, -INF)),
    *(("weight", v, TypeError) for v in ("1", None)),
    *((name, v, ValueError) for name in ("weight", "epsilon") for v in (10**400, -(10**5000))),
    *(("label_smoothing", v, ValueError) for v in (-0.125, 1.125, NAN)),
    *(("label_smoothing", v, TypeError) for v in ("0", [0])),
    *(("epsilon", v, ValueError) for v in (-0.5, NAN, INF)),
    ("epsilon", "x", TypeError),
    *(("delta", v, ValueError) for v in (0, -1, NAN, INF)),
    ("delta", 1j, TypeError),
]
SETTINGS: list[tuple[str, Any, type[BaseException]]] = [
    *PARAMETERS,
    *(("number_of_classes", v, ValueError) for v in (0, -1)),
    *(("number_of_classes", v, ValueError) for v in (2**63, 10**400, 10**5000)),
    *(("number_of_classes", v, TypeError)
      for v in (1.5, "2", np.ones(2, int), np.float64(2), True)),
    ("reduce_across_batch", "yes", TypeError),
    *(("loss_type", v, ValueError) for v in ("no_such_loss", "\udc80", 10, -1, 2**80)),
    *(("loss_type", v, TypeError) for v in (None, 1.5, ml.MPSCNNReductionType.SUM)),
    *(("reduction_type", v, ValueError) for v in ("average", 4, -1, "mean by weights")),
    *(("reduction_type", v, TypeError) for v in (None, 1.5, ml.MPSCNNLossType.HUBER)),
]


def written(value: Any) -> str:
    """How a message names a value: huge integers have no digits in Python."""
    return "int" if isinstance(value, int) and abs(value) > 10**4000 else repr(value)[:60]


READ_ONLY = {
    "gradient": "loss_type reduction_type reduce_across_batch number_of_classes device "
                "is_backwards is_state_modified primary_kernel_width secondary_kernel_height "
                "primary_dilation_rate_x secondary_dilation_rate_y debug_description objc_pointer",
    "forward": "loss_type device kernel_width kernel_height stride_in_pixels_x dilation_rate_y",
    "batch": "shape dtype", "device": "name kind", "buffer": "status error",
}


def settings() -> Iterator[Row]:
    for name, value, error in SETTINGS:
        argument = name.replace("reduction_type", r"reduction\w*")
        pattern = must(argument, written(value)) if error is ValueError else must(argument)
        new = {"loss_type": "huber", name: value}
        call = {name.replace("reduction_type", "reduction"): value}
        given = f"{name}={written(value)}"
        yield f"descriptor {given}", lambda w, a=new: w.descriptor(**a), error, pattern
        yield f"set descriptor {given}", assign("d", name, value), error, pattern
        yield f"function {given}", lambda w, a=call: w.both(**a), error, pattern
    for name, value, error in PARAMETERS:
        pattern = must(name, written(value)) if error is ValueError else must(name)
        for owner in ("gradient", "forward"):
            yield f"set {owner} {name}={written(value)}", assign(owner, name, value), error, pattern
    for owner, names in READ_ONLY.items():
        for name in names.split():
            yield f"set {owner} {name}", assign(owner, name, None), AttributeError, "set|writ|read"


G, F = ml.MPSNNLossGradient, ml.MPSNNForwardLoss
KERNELS: list[Row] = [
    ("hash of a descriptor", lambda w: hash(w.d), TypeError, "unhashable"),
    ("hash of an image descriptor", lambda w: hash(w.images), TypeError, "unhashable"),
    ("descriptor of nothing", lambda w: w.descriptor(), TypeError, "loss_type"),
    ("third by position", lambda w: w.descriptor("huber", "sum", False), TypeError, ""),
    ("unknown keyword", lambda w: w.descriptor("huber", gamma=2.0), TypeError, ""),
    ("gradient on None", lambda w: G(None, w.d), TypeError, "device"),
    ("gradient on text", lambda w: G("cpu", w.d), TypeError, "device"),
    ("gradient of None", lambda w: G(w.device, None), TypeError, "descriptor"),
    ("forward of text", lambda w: F(w.device, "huber"), TypeError, "descriptor"),
    ("forward on None", lambda w: F(None, w.d), TypeError, "device"),
    ("initial on None", lambda w: ml.MPSNNInitialGradient(None), TypeError, "device"),
    *((f"cosine {kernel.__name__} {reduction}", lambda w, k=kernel, r=reduction: k(
        w.device, w.descriptor("cosine_distance", r)), ValueError, "reduction.*sum")
      for kernel in (G, F) for reduction in ("none", "mean", "sum_by_non_zero_weights")),
    ("copy to a name", lambda w: w.gradient.copy("cpu"), TypeError, "device"),
    ("archive text", lambda w: G.from_bytes("x", w.device), TypeError, "data"),
    ("archive None", lambda w: G.from_bytes(None, w.device), TypeError, "data"),
    ("archive empty", lambda w: G.from_bytes(b"", w.device), ValueError, "data"),
    ("archive on None", lambda w: G.from_bytes(w.archives[0], None), TypeError, "device"),
    ("wrong archive", lambda w: F.from_bytes(w.archives[0], w.device), ValueError, "ForwardLoss"),
    *((f"{owner} {name}={value}", assign(owner, name, value), error,
       must(name, given) if error is ValueError else name)
      for owner, name, value, error, given in (
        ("gradient", "compute_label_gradients", "yes", TypeError, ""),
        ("gradient", "label", 3, TypeError, ""),
        ("gradient", "label", "\ud800", ValueError, "ud800"),
        ("gradient", "options", ml.MPSCNNLossType.HUBER, TypeError, ""),
        ("forward", "edge_mode", ml.MPSCNNReductionType.SUM, TypeError, ""),
        ("forward", "padding", 1 << 11, ValueError, 1 << 11),
        ("forward", "options", "fast", ValueError, "fast"),
        ("gradient", "options", 1 << 20, ValueError, ""),
        ("gradient", "primary_edge_mode", "wrap", ValueError, "wrap"),
        ("forward", "edge_mode", 99, ValueError, 99),
        ("gradient", "primary_offset", (1, 2), ValueError, ""),
        ("gradient", "primary_offset", None, TypeError, ""),
        ("forward", "offset", "xyz", TypeError, ""),
        ("gradient", "clip_rect", ((0, 0, 0),), ValueError, ""),
        ("gradient", "clip_rect", 3, TypeError, ""),
        ("gradient", "primary_stride_in_pixels_x", -1, ValueError, -1),
        ("forward", "source_feature_channel_max_count", -1, ValueError, -1),
        ("gradient", "primary_source_feature_channel_max_count", 2**64, ValueError, ""),
        ("gradient", "destination_image_allocator", "heap", ValueError, "heap"))),
]


def image(**changes: Any) -> ml.MPSImageDescriptor:
    return ml.MPSImageDescriptor(**{"width": 1, "height": 1, "feature_channels": 1} | changes)


def batch(w: World, shape: Any = SHAPE, dtype: Any = np.float32) -> ml.MPSImageBatch:
    return ml.MPSImageBatch.from_array(w.device, np.zeros(shape, dtype))


IMAGES: list[Row] = [
    ("format", lambda w: image(channel_format="i8"), ValueError, must("channel_format", "i8")),
    ("format None", lambda w: image(channel_format=None), TypeError, "channel_format"),
    ("no width", lambda w: ml.MPSImageDescriptor(height=1, feature_channels=1), TypeError, "width"),
    *((f"{name}={value}", lambda w, a={name: value}: image(**a), error,
       must(name, value) if error is ValueError else name)
      for name in ("width", "height", "feature_channels")
      for value, error in ((0, ValueError), (-1, ValueError), (1.5, TypeError))),
    ("image on None", lambda w: ml.MPSImage(None, w.images), TypeError, "device"),
    ("image of None", lambda w: ml.MPSImage(w.device, None), TypeError, "descriptor"),
    ("batch of None", lambda w: ml.MPSImageBatch.from_array(w.device, None), TypeError, "array"),
    ("batch of text", lambda w: ml.MPSImageBatch.from_array(w.device, "text"), TypeError, "array"),
    ("batch on None", lambda w: ml.MPSImageBatch.from_array(None, w.y), TypeError, "device"),
    *((f"batch of {dtype}", lambda w, d=dtype: batch(w, dtype=d), TypeError, must("array", dtype))
      for dtype in ("int32", "bool", "complex64", "object")),
    *((f"batch of shape {shape}", lambda w, s=shape: batch(w, s), ValueError, must("array"))
      for shape in ((), (3,), (2, 2, 3), (1, *SHAPE), (0, 3), (2, 0), (0, 2, 2, 3), (2, 0, 2, 3))),
    ("index 2", lambda w: w.batch[2], IndexError, ""),
    ("index -3", lambda w: w.batch[-3], IndexError, ""),
    ("index text", lambda w: w.batch["0"], TypeError, ""),
    ("short bytes", lambda w: w.batch[0].write_bytes(b"x"), ValueError, "must .*48.*got .*1"),
    ("long bytes", lambda w: w.batch[0].write_bytes(bytes(49)), ValueError, "must .*48.*got .*49"),
    ("no bytes", lambda w: w.batch[0].write_bytes(None), TypeError, ""),
    ("to_array too early", lambda w: w.encode().to_array(), RuntimeError, ""),
    ("asarray too early", lambda w: np.asarray(w.encode_forward()), RuntimeError, ""),
    ("read_bytes too early", lambda w: w.encode()[0].read_bytes(), RuntimeError, ""),
    ("state too early", lambda w: w.states()[0].weight, RuntimeError, ""),
]


def operands() -> Iterator[Row]:
    """What encodes and kernel calls refuse of the arrays they read."""
    for f, images, others in (
        (World.encode, "source_images", ("labels", "weights", "source_gradients")),
        (World.encode_forward, "source_images", ("labels", "weights")),
        (World.call, "predictions", ("labels", "weights", "source_gradient")),
        (World.call_forward, "predictions", ("labels", "weights")),
    ):
        for name in (images, *others):
            good = PIXEL if name.startswith("source_grad") else SHAPE
            one = np.ones(good, np.float32)
            for what, value, error in (
                ("rank 1", one[0, 0, 0], ValueError), ("rank 3", one[0], ValueError),
                ("rank 5", one[None], ValueError), ("empty", one[..., :0], ValueError),
                ("strided", one.repeat(2, 0)[::2], ValueError),
                ("3 images", one[[0, 1, 0]], ValueError), ("no images", [], ValueError),
                ("int32", one.astype(np.int32), TypeError), ("bool", one > 0, TypeError),
                ("float64", one.astype(np.float64), TypeError), ("text", "text", TypeError),
                ("complex", one.astype(np.complex64), TypeError),
                ("swapped", one.astype(">f4"), TypeError),
                ("masked", np.ma.masked_array(one, one > 0), TypeError),
                ("object", one.astype(object), TypeError), ("Nones", [None, None], TypeError),
                # A direct call takes a number as a source gradient of every image.
                *([("number", 3, TypeError)] if name != "source_gradient" else []),
                *([("None", None, TypeError)] if name in (images, "labels") else []),
            ):
                # Of predictions that fit nothing else, any of the others may be named.
                misfit = name == images and what in ("3 images", "float64")
                yield (f"{f.__name__}: {name} {what}", lambda w, f=f, a={name: value}: f(w, **a),
                       error, "must" if misfit else rf"\b{name}\b")
        for shape in ((1, 2, 2, 3), (2, 1, 2, 3), (2, 2, 1, 3), (2, 2, 2, 1), (2, 2, 2, 4)):
            a = {"labels": np.ones(shape, np.float32)}
            yield (f"{f.__name__}: labels {shape}", lambda w, f=f, a=a: f(w, **a), ValueError,
                   shapes("labels", SHAPE, shape))
        for shape in ((3, 2, 2, 3), (2, 3, 2, 3), (1, 1, 3, 1), (2, 2, 2, 2)):
            a = {"weights": np.ones(shape, np.float32)}
            yield (f"{f.__name__}: weights {shape}", lambda w, f=f, a=a: f(w, **a), ValueError,
                   shapes("weights", SHAPE, shape))
    for f, name in ((World.encode, "source_gradients"), (World.call, "source_gradient")):
        for kernel in ("gradient", "per_element"):
            wrong = [(1, 1, 1, 1), (2, 1, 1, 3), (2, 2, 2, 1)]
            for shape in [*wrong, SHAPE if kernel == "gradient" else (1, 2, 2, 3)]:
                a = {name: np.ones(shape, np.float32)}
                yield (f"{f.__name__}: {kernel} {name} {shape}",
                       lambda w, f=f, k=kernel, a=a: f(w, getattr(w, k), **a), ValueError,
                       shapes(name, PIXEL, shape))


OF_FUNCTIONS = ("gradient", "both", "loss", "both none", "per image", "curved")


def destinations() -> Iterator[Row]:
    """What encodes, calls and functions refuse of the memory they should write.

    Functions write into any strides; kernels, calls and `to_array` want contiguous memory.
    """
    read = ("labels", "weights")
    for verb, f, name, shape, inputs in (
        ("encode", World.encode, "destination_gradients", SHAPE, ("source_images", *read)),
        ("encode forward", World.encode_forward, "destination_images", PIXEL, ()),
        ("call", World.call, "out", SHAPE, ("predictions", *read)),
        ("call forward", World.call_forward, "out", PIXEL, ()),
        ("to_array", lambda w, out: w.batch.to_array(out), "out", SHAPE, ()),
        ("gradient", World.slope, "out", FLAT, ("predictions", *read)),
        ("both", World.both, "out", FLAT, ("predictions", *read)),
        ("loss", lambda w, **a: w.loss(reduction="none", **a), "out", FLAT, ("predictions", *read)),
        ("both none", lambda w, **a: w.both(reduction="none", **a), "loss_out", FLAT, read),
        ("per image", lambda w, **a: w.loss(reduce_across_batch=False, **a), "out", (2,), ()),
        ("loss scalar", World.loss, "out", (), ()),
        ("curved", World.curved, "hessian_out", FLAT, ("predictions", *read)),
    ):
        other = (*shape, 1) if len(shape) < 2 else (*shape[:-1], shape[-1] + 1)
        for what, make, error, pattern in (
            ("shape", lambda w, s=other: w.new(s), ValueError, shapes(name, shape, other)),
            ("half", lambda w, s=shape: w.new(s, np.float16), TypeError, must(name, "float16")),
            ("double", lambda w, s=shape: w.new(s, np.float64), TypeError, must(name, "float64")),
            ("int32", lambda w, s=shape: w.new(s, np.int32), TypeError, must(name, "int32")),
            ("read-only", lambda w, s=shape: w.frozen(s), ValueError, must(name, "writ")),
            ("list", lambda w: [0.0], TypeError, name),
            *([("strided", lambda w, s=shape: w.strided(s), ValueError, must(name, "contiguous"))]
              if shape and verb not in OF_FUNCTIONS else []),
            *([("over itself", lambda w, s=shape: w.over_itself(s), ValueError, must(name)),
               ("unaligned", lambda w, s=shape: w.unaligned(s), ValueError, must(name, "aligned"))]
              if shape and verb in OF_FUNCTIONS else []),
        ):
            yield (f"{verb}: {name} {what}", lambda w, f=f, n=name, m=make: f(w, **{n: m(w)}),
                   error, pattern)
        for source in inputs:
            def over(w: World, f: Any = f, n: Any = name, r: Any = source, s: Any = shape) -> Any:
                memory = w.new(int(np.prod(s)) + 1)
                return f(w, **{r: memory[1:].reshape(s), n: memory[:-1].reshape(s)})

            yield f"{verb}: {name} over {source}", over, ValueError, must(name)


ENCODES: list[Row] = [
    ("3 source states", lambda w: w.encode(source_states=w.states()[:1] * 3), ValueError,
     must("source_states", 3)),
    ("unfilled", lambda w: w.encode(source_states=w.states()), RuntimeError, "source_states"),
    ("states None", lambda w: w.encode(source_states=[None] * 2), TypeError, "source_states"),
    ("3 destination states", lambda w: w.encode_forward(
        destination_states=w.states()[:1] * 3), ValueError, must("destination_states", 3)),
    ("destination states None", lambda w: w.encode_forward(
        destination_states=[None] * 2), TypeError, "destination_states"),
    ("states by position", lambda w: w.forward.encode_batch(
        w.buffer, w.y, w.t, w.v, w.states()), TypeError, ""),
    ("states of None", lambda w: w.forward.result_state_batch(None), TypeError, "source_images"),
    ("buffer None", lambda w: w.encode(command_buffer=None), TypeError, "command_buffer"),
    ("buffer text", lambda w: w.encode_forward(command_buffer="b"), TypeError, "command_buffer"),
    ("initial None", lambda w: w.initial.encode_batch(None, w.y), TypeError, "command_buffer"),
    ("initial None", lambda w: w.initial.encode_batch(w.buffer, None), TypeError, "source_images"),
    ("initial rank 3", lambda w: w.initial.encode_batch(w.buffer, w.y[0]), ValueError,
     must("source_images")),
    ("source_gradients None", lambda w: w.encode(source_gradients=None), TypeError,
     "source_gradients"),
    ("cosine channel weights", lambda w: w.encode(w.cosine), ValueError, must("weights", SHAPE)),
    ("two sizes", lambda w: w.encode(labels=[w.batch[0], ml.MPSImage(
        w.device, image())]), ValueError, "labels"),
    ("gradient over its source gradient", lambda w: w.encode(
        w.per_element, source_gradients=w.t, labels=w.y, destination_gradients=w.t), ValueError,
     must("destination_gradients")),
    ("gradient over its images", lambda w: w.encode(
        source_images=w.batch, destination_gradients=w.batch), ValueError,
     must("destination_gradients")),
    ("one image twice", lambda w: w.encode(
        destination_gradients=[ml.MPSImage(w.device, w.images)] * 2), ValueError,
     "destination_gradients"),
]


def inherited() -> Iterator[Row]:
    """Encoding with an inherited property off its default: undefined in Apple's header."""
    once = {"clip_rect": ((0, 0, 0), (1, 1, 1)), "destination_feature_channel_offset": 4,
            "padding": 32, "destination_image_allocator": "image"}
    each = {"offset": (1, 0, 0), "source_feature_channel_offset": 4, "edge_mode": "clamp",
            "source_feature_channel_max_count": 4}
    both = each | {"stride_in_pixels_x": 2, "stride_in_pixels_y": 2}
    binary = once | {f"{p}_{n}": v for p in ("primary", "secondary") for n, v in both.items()}
    for name, value in binary.items():
        yield (f"gradient with {name}", lambda w, n=name, v=value: w.encode(
            w.changed(w.gradient, n, v)), ValueError, must(name))
        yield (f"gradient call with {name}", lambda w, n=name, v=value: w.call(
            w.changed(w.gradient, n, v)), ValueError, must(name))
    for name, value in (once | each).items():
        yield (f"forward with {name}", lambda w, n=name, v=value: w.encode_forward(
            w.changed(w.forward, n, v)), ValueError, must(name))
        yield (f"initial with {name}", lambda w, n=name, v=value: w.changed(
            w.initial, n, v).encode_batch(w.buffer, w.y), ValueError, must(name))


def brief(value: Any) -> str:
    return f"{value.dtype}{value.shape}" if isinstance(value, np.ndarray) else repr(value)


def functions() -> Iterator[Row]:
    for f in (World.loss, World.slope, World.both):
        for name, value, error, pattern in (
            ("predictions", np.float32(1), ValueError, must("predictions")),
            *((name, v, TypeError, must(name)) for v in (
                np.ma.masked_array(np.ones(FLAT), np.ones(FLAT)),
                np.ma.masked_array(np.ones(FLAT, np.float32), False))
              for name in ("predictions", "labels", "weights", "out")
              if (name, f) != ("out", World.loss)),
            *((name, [[1.0, 2.0, 3.0], [4.0]], ValueError, must(name))
              for name in ("predictions", "labels", "weights")),
            *(("predictions", v, TypeError, "predictions") for v in (
                None, np.ones(FLAT, complex), np.ones(FLAT, object), np.array(["a"] * 3))),
            *(("labels", np.ones(s, np.float32), ValueError, shapes("labels", FLAT, s))
              for s in ((2, 4), (3, 3), (1, 3), (2, 3, 1), (2,), ())),
            *(("labels", v, TypeError, "labels") for v in (
                None, np.ones(FLAT, complex), np.ones(FLAT, object), np.full(FLAT, "a"))),
            ("labels", np.array([0, 1]), ValueError, "labels"),  # indices, for a Huber loss
            *(("weights", np.ones(s, np.float32), ValueError, must("weights"))
              for s in ((2,), (4, 3), (3, 1), (2, 2, 3))),
            *(("weights", v, TypeError, "weights") for v in (np.ones(FLAT, complex), "text")),
            ("ignore_index", 0, ValueError, "ignore_index"),  # the labels are dense
            *(("ignore_index", v, TypeError, "ignore_index") for v in (1.5, "x")),
            ("device", 3, TypeError, "device"),
            ("gamma", 3, TypeError, "gamma"),
            *(("wrt", "both", ValueError, must("wrt", "both")) for _ in [0] if f != World.loss),
            *(("wrt", v, TypeError, "wrt") for v in (None, 3) if f != World.loss),
            *(("source_gradient", v, TypeError, "source_gradient")
              for v in ("one", 1j, np.ones(2, object)) if f != World.loss),
        ):
            yield (f"{f.__name__}: {name}={brief(value)}",
                   lambda w, f=f, a={name: value}: f(w, **a), error, pattern)
        for reduction in ("none", "mean", "sum_by_non_zero_weights"):
            yield (f"{f.__name__}: cosine {reduction}", lambda w, f=f, r=reduction: f(
                w, loss_type="cosine_distance", reduction=r), ValueError, "reduction.*sum")
        yield (f"{f.__name__}: cosine weights", lambda w, f=f: f(
            w, loss_type="cosine_distance", reduction="sum", weights=w.p), ValueError,
               must("weights"))
    for keyword, wrong in (
        ({}, ((2,), (1, 1), FLAT)), ({"reduce_across_batch": False}, ((3,), (2, 1), FLAT)),
        ({"reduction": "none"}, ((2,), (2, 1), (1, 3), (3, 2))),
    ):
        for shape in wrong:
            a = keyword | {"source_gradient": np.ones(shape, np.float32)}
            yield (f"source gradient {keyword} {shape}", lambda w, a=a: w.slope(**a), ValueError,
                   must("source_gradient", shape))
    for function in (ml.loss, ml.loss_gradient, ml.loss_and_gradient):
        yield (f"{function.__name__} without labels",
               lambda w, f=function: f(w.p, loss_type="huber"), TypeError, "labels")
        yield (f"{function.__name__} with four by position",
               lambda w, f=function: f(w.p, w.q, "huber", "sum"), TypeError, "")
    for value, dtype in ((3, np.int64), (-1, np.int64), (-128, np.int8), (2**64 - 1, np.uint64),
                         (3, ">i4"), (255, np.uint8)):
        flat = np.array([0, value], dtype)
        yield (f"class {value} {dtype}", lambda w, i=flat: w.indices(i), ValueError,
               rf"labels\[1\] is {value}\b.*\[0, 3\)")
        deep = np.array([[2, 1], [value, value]], dtype)
        yield (f"class {value} {dtype} in a row", lambda w, i=deep: w.loss(
            predictions=w.y[0], labels=i, loss_type=4), ValueError, rf"labels\[1, 0\] is {value}\b")
    yield ("ignored and wrong", lambda w: w.indices(np.array([-1, -2]), ignore_index=-1),
           ValueError, r"labels\[1\] is -2\b.*ignore_index")
    yield ("bool classes", lambda w: w.indices(np.array([True, False])), TypeError, must("labels"))
    yield ("classes with wrt labels",
           lambda w: w.indices(w.classes, wrt="labels"), ValueError, "wrt")
    yield ("three classes for two",
           lambda w: w.indices(np.array([0, 1, 2])), ValueError, must("labels"))

    def shared_destination(w: World) -> Any:
        out = w.new(FLAT)
        return w.both(reduction="none", out=out, loss_out=out)

    yield "loss_out is out", shared_destination, ValueError, r"(loss_)?out must"

    # The caller's own memory counts, not that of a converted copy.
    for dtype in (">f4", np.float64, np.int32, np.float32):
        for name in ("predictions", "labels", "weights", "source_gradient"):
            for out in ("out", "loss_out"):
                def over(w: World, n: str = name, o: str = out, d: Any = dtype) -> Any:
                    memory = w.watch(np.arange(64, dtype=np.float32))
                    read = memory.view(d)[:12:2] if d is np.float32 else memory.view(d)[:6]
                    a = {n: read.reshape(FLAT), o: memory[:6].reshape(FLAT)}
                    if n == "predictions":  # their dtype is that of the destinations
                        a |= {n: memory[:12:2].reshape(FLAT)}
                    return w.both(reduction="none", **a)

                yield f"{out} over {name} converted from {dtype}", over, ValueError, must(out)
    for dtype in (np.int64, np.int32, np.uint8, ">i8"):
        for out in ("out", "loss_out"):
            def over_classes(w: World, o: str = out, d: Any = dtype) -> Any:
                memory = w.watch(np.zeros(16, np.float32))
                a = {o: memory[:6].reshape(FLAT)}
                return w.indices(memory.view(d)[:2], reduction="none", **{"loss_out": None} | a)

            yield f"{out} over classes of {dtype}", over_classes, ValueError, must(out)

    def over_expanded(w: World) -> Any:
        memory = w.watch(np.ones(SHAPE, np.float32))
        weights = memory[:, :1, :, :1]  # no rank-4 shape of four axes broadcasts as this does
        a = {"predictions": w.y[None], "labels": w.t[None], "weights": weights[None]}
        return w.slope(**a, out=memory[None])

    yield "out over expanded weights", over_expanded, ValueError, must("out")

    def over_scalar(w: World) -> Any:
        memory = w.new(FLAT)
        return w.slope(source_gradient=memory[0, 0:1].reshape(()), out=memory)

    yield "out over a scalar source gradient", over_scalar, ValueError, must("out")


def by_name() -> Iterator[Row]:
    """What functions have beside Apple's arguments: axis, weights by name, divisor, Hessian."""
    hidden = np.ma.masked_array(np.ones(3), False)
    for f in (World.loss, World.slope, World.both, World.curved, World.divisor):
        for name, value, error, pattern in (
            *(("axis", v, ValueError, must("axis", v)) for v in (2, -3, 2**80)),
            *(("axis", v, TypeError, "axis") for v in (1.5, "1", None, (1,), [0], np.float64(1))),
            *(("sample_weight", np.ones(s, np.float32), ValueError, must("sample_weight", s))
              for s in ((3,), (1,), (2, 1), FLAT, (3, 2), ())),
            *(("class_weight", np.ones(s, np.float32), ValueError, must("class_weight", s))
              for s in ((2,), (1,), (3, 1), FLAT, ())),
            *((name, v, TypeError, name) for name in ("sample_weight", "class_weight")
              for v in ("text", 1j, np.ones(3, complex), np.ones(3, object), hidden)),
            *((name, [[1.0], [1.0, 2.0]], ValueError, must(name))
              for name in ("sample_weight", "class_weight")),
            ("weights", np.ones(2, np.float32), ValueError,
             must("weights", "pass sample_weight") + r".*\(2,\)"),
        ):
            yield (f"{f.__name__}: {name}={brief(value)}",
                   lambda w, f=f, a={name: value}: f(w, **a), error, pattern)
        yield (f"{f.__name__}: class weights for one sample", lambda w, f=f: f(
            w, predictions=w.p[0], labels=w.q[0], sample_weight=w.p[0]), ValueError,
               must("sample_weight", "pass class_weight") + r".*\(3,\)")
        yield (f"{f.__name__}: cosine class_weight", lambda w, f=f: f(
            w, loss_type="cosine_distance", reduction="sum", class_weight=w.p[0]), ValueError,
               "^class_weight")
        yield (f"{f.__name__}: cosine mean_by_weights", lambda w, f=f: f(
            w, loss_type="cosine_distance", reduction="mean_by_weights"), ValueError,
               "reduction.*sum")
        yield (f"{f.__name__}: labels along another axis", lambda w, f=f: f(
            w, axis=0, labels=w.q.T.copy()), ValueError, shapes("labels", FLAT, (3, 2)))
        yield (f"{f.__name__}: class 2 of an axis of 2", lambda w, f=f: f(
            w, axis=0, labels=np.array([0, 2, 1]), loss_type=2), ValueError,
               r"labels\[1\] is 2\b.*\[0, 2\)")
    for f in (World.loss, World.slope, World.both, World.curved):
        for value, error in ((NAN, ValueError), (INF, ValueError), (10**400, ValueError),
                             ("2", TypeError), ([2.0], TypeError), (1j, TypeError),
                             (np.ones(2), TypeError)):
            yield (f"{f.__name__}: divisor={written(value)}",
                   lambda w, f=f, v=value: f(w, divisor=v), error,
                   must("divisor", written(value) if error is ValueError else ""))
        for reduction in ("none", "sum"):
            yield (f"{f.__name__}: divisor for {reduction}", lambda w, f=f, r=reduction: f(
                w, reduction=r, divisor=2.0), ValueError, must("divisor", reduction))
        for loss_type in ("huber", "categorical_cross_entropy"):
            yield (f"{f.__name__}: smoothed {loss_type}", lambda w, f=f, t=loss_type: f(
                w, loss_type=t, label_smoothing=0.125), ValueError,
                   must("label_smoothing", 0.125))
    for reduction in ("none", "sum"):
        yield (f"reduction_divisor of {reduction}", lambda w, r=reduction: w.divisor(reduction=r),
               ValueError, must("reduction", reduction))
    for name, value in (("divisor", 2.0), ("source_gradient", 1.0), ("weight", 2.0)):
        yield (f"reduction_divisor with {name}", lambda w, a={name: value}: w.divisor(**a),
               TypeError, name)
    yield "hessian with wrt", lambda w: w.curved(wrt="predictions"), TypeError, "wrt"
    yield ("hessian_out is out", lambda w: (lambda out: w.curved(out=out, hessian_out=out))(
        w.new(FLAT)), ValueError, must("(hessian_)?out"))
    for f in (World.slope, World.both):
        for loss_type in ("softmax_cross_entropy", "categorical_cross_entropy"):
            yield (f"{f.__name__}: labels that the divisor of {loss_type} depends on",
                   lambda w, f=f, t=loss_type: f(w, loss_type=t, wrt="labels",
                                                 reduction="mean_by_weights"),
                   ValueError, "divisor")
    pattern = must(r"reduction\w*", "mean_by_weights")
    yield ("descriptor mean_by_weights", lambda w: w.descriptor("huber", "mean_by_weights"),
           ValueError, pattern)
    yield ("set descriptor mean_by_weights", assign("d", "reduction_type", "mean_by_weights"),
           ValueError, pattern)
    for name, count in (("sample_weight", 2), ("class_weight", 3)):
        for out in ("out", "loss_out"):
            def over_named(w: World, n: str = name, o: str = out, c: int = count) -> Any:
                memory = w.new(8)
                a = {n: memory[:c], o: memory[1:7].reshape(FLAT)}
                return w.both(reduction="none", **a)

            yield f"{out} over {name}", over_named, ValueError, must(out)


# fmt: on
GROUPS = {
    "queues": QUEUES,
    "settings": settings(),
    "kernels": KERNELS,
    "images": IMAGES,
    "encodes": ENCODES,
    "operands": operands(),
    "destinations": destinations(),
    "inherited": inherited(),
    "functions": functions(),
    "by name": by_name(),
}
ROWS = [(f"{group}: {row[0]}", *row[1:]) for group, rows in GROUPS.items() for row in rows]


@pytest.mark.parametrize(
    ("mistake", "error", "pattern"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_mistake_raises_and_writes_nothing(
    device: ml.Device, mistake: Callable[[World], Any], error: type[BaseException], pattern: str
) -> None:
    world = World(device)
    with pytest.raises(error, match=pattern or r"\w") as caught:
        mistake(world)
    assert type(caught.value) is error
    world.check_untouched()


def test_the_same_arguments_without_a_mistake_are_accepted(device: ml.Device) -> None:
    world = World(device)
    world.encode()
    world.encode(world.per_element)
    world.encode(world.cosine, weights=world.v[..., :1].copy())
    world.encode_forward()
    world.initial.encode_batch(world.buffer, world.y)
    assert world.call().shape == SHAPE
    assert world.call_forward().shape == PIXEL
    assert world.slope().shape == world.both()[1].shape == FLAT
    assert np.isfinite(world.loss())
    assert world.divisor() == 6
    strided = np.zeros((*FLAT, 2), np.float32)[..., 0]
    assert world.slope(axis=0, out=strided) is strided
    assert np.isfinite(world.indices(world.classes, out=None, loss_out=None)[0])
    world.check_untouched()
