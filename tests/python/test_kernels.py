"""The three kernels: properties, copies, archives, states, what encode captures and returns."""

from __future__ import annotations

import copy
import itertools
import os
import pickle
from typing import Any

import mpsnn_loss as ml
import numpy as np
import pytest

LONG = 60.0  # seconds: the end of a test that hangs
CLASSES = (ml.MPSNNLossGradient, ml.MPSNNForwardLoss, ml.MPSNNInitialGradient)
PARAMETERS = {"weight": 0.1, "label_smoothing": 0.3, "epsilon": 1e-3, "delta": 2.5}
LOSS = {"weight": 1.0, "label_smoothing": 0.0, "epsilon": 1e-7, "delta": 1.0}
OWN = ("loss_type", "reduction_type", "reduce_across_batch", "number_of_classes")
EVERY_KERNEL = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)

# name: (default, another value); read-only ones have no other value.
CLIP = ((1, 0, 0), (2, 3, 1))
COMMON: dict[str, tuple[Any, ...]] = {
    "clip_rect": (None, CLIP),
    "destination_feature_channel_offset": (0, 4),
    "is_backwards": (False,),
    "is_state_modified": (False,),
    "padding": (16, 32),
    "destination_image_allocator": ("temporary_image", "image"),
    "options": (ml.MPSKernelOptions.NONE, ml.MPSKernelOptions.VERBOSE),
    "label": (None, "loss of the head"),
}
SOURCE: dict[str, tuple[Any, ...]] = {
    "offset": ((0, 0, 0), (1, -2, 3)),
    "source_feature_channel_offset": (0, 8),
    "source_feature_channel_max_count": (2**64 - 1, 12),
    "edge_mode": (ml.MPSImageEdgeMode.ZERO, ml.MPSImageEdgeMode.CLAMP),
    "kernel_width": (1,),
    "kernel_height": (1,),
    "dilation_rate_x": (1,),
    "dilation_rate_y": (1,),
}
UNARY = COMMON | SOURCE | {"stride_in_pixels_x": (1,), "stride_in_pixels_y": (1,)}
EACH = SOURCE | {"stride_in_pixels_x": (1, 2), "stride_in_pixels_y": (1, 3)}
BINARY = COMMON | {f"{p}_{n}": v for p in ("primary", "secondary") for n, v in EACH.items()}
BINARY |= {"compute_label_gradients": (False, True)}

# No header states what these are in a fresh kernel, and a platform may have others.
UNDOCUMENTED = {"padding", "is_backwards", "is_state_modified"}
UNDOCUMENTED |= {name for name in UNARY | BINARY if "dilation_rate" in name}


def table(cls: type) -> dict[str, tuple[Any, ...]]:
    if cls is ml.MPSNNInitialGradient:
        return UNARY
    own = {name: (default, PARAMETERS[name]) for name, default in LOSS.items()}
    return own | (BINARY if cls is ml.MPSNNLossGradient else UNARY)


def make(cls: type, device: ml.Device, loss: str = "huber", reduction: str = "sum") -> Any:
    if cls is ml.MPSNNInitialGradient:
        return cls(device)
    return cls(device, ml.MPSCNNLossDescriptor(loss, reduction))


def properties(kernel: Any) -> dict[str, Any]:
    own = () if isinstance(kernel, ml.MPSNNInitialGradient) else OWN
    return {name: getattr(kernel, name) for name in (*table(type(kernel)), *own)}


def changed_throughout(cls: type, device: ml.Device) -> Any:
    """A kernel with no property at its default."""
    kernel = make(cls, device)
    if cls is not ml.MPSNNInitialGradient:
        descriptor = ml.MPSCNNLossDescriptor(
            "softmax_cross_entropy", "mean", reduce_across_batch=True, number_of_classes=11
        )
        kernel = cls(device, descriptor)
    for name, values in table(cls).items():
        if len(values) == 2:
            setattr(kernel, name, values[1])
    return kernel


def encode(kernel: Any, buffer: ml.CommandBuffer, **changes: Any) -> ml.MPSImageBatch:
    g, y, t = np.ones((2, 1)), np.array([[3.0, -4.0], [0.5, 6.0]]), np.zeros((2, 2))
    operands = {"source_gradients": g, "source_images": y, "labels": t}
    arguments: dict[str, Any] = {name: a.astype(np.float32) for name, a in operands.items()}
    if isinstance(kernel, ml.MPSNNForwardLoss):
        del arguments["source_gradients"]
    return kernel.encode_batch(buffer, **arguments | changes)


def result(kernel: Any, **changes: Any) -> np.ndarray:
    with kernel.device.make_command_queue().make_command_buffer() as buffer:
        batch = encode(kernel, buffer, **changes)
    return batch.to_array()


@EVERY_KERNEL
def test_every_property_of_a_class_stands_in_the_table(cls: type, device: ml.Device) -> None:
    members = {name: value for kind in cls.__mro__ for name, value in vars(kind).items()}
    own = {name for name, value in members.items() if isinstance(value, property)}
    own = {name for name in own if not name.startswith("_")}
    fixed = {"device", "loss_type", "reduction_type", "reduce_across_batch", "number_of_classes"}
    assert own - fixed - {"debug_description", "objc_pointer"} == table(cls).keys()


@EVERY_KERNEL
def test_defaults_are_apples_and_every_read_write_property_keeps_what_it_is_given(
    cls: type, device: ml.Device
) -> None:
    kernel = make(cls, device)
    assert kernel.device == device
    defaults = {name: values[0] for name, values in table(cls).items()}
    if os.environ.get("SOFTMETAL_FAULT") == "other_defaults" and device.kind == "metal":
        defaults |= {name: getattr(kernel, name) for name in UNDOCUMENTED & defaults.keys()}
    assert {name: getattr(kernel, name) for name in table(cls)} == defaults
    changed = changed_throughout(cls, device)
    for name, values in table(cls).items():
        assert getattr(changed, name) == (values[1] if len(values) == 2 else defaults[name]), name
        if len(values) == 2:
            setattr(changed, name, values[0])
            assert getattr(changed, name) == values[0], name


DUPLICATES = {
    "copy": lambda kernel: kernel.copy(),
    "copy to the device": lambda kernel: kernel.copy(device=kernel.device),
    "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy,
    "pickle": lambda kernel: pickle.loads(pickle.dumps(kernel)),
    "archive": lambda kernel: type(kernel).from_bytes(kernel.to_bytes(), kernel.device),
}


@EVERY_KERNEL
@pytest.mark.parametrize("way", DUPLICATES)
def test_every_property_survives_duplication_into_an_independent_kernel(
    way: str, cls: type, device: ml.Device
) -> None:
    for original in (make(cls, device), changed_throughout(cls, device)):
        before = properties(original)
        twin = DUPLICATES[way](original)
        assert type(twin) is cls
        assert properties(twin) == before
        assert twin.device.kind == device.kind
        twin.label = "another"
        assert properties(original) == before


@EVERY_KERNEL
def test_kernels_compare_and_hash_by_identity(cls: type, device: ml.Device) -> None:
    kernel = make(cls, device)
    twin = kernel.copy()
    assert kernel == kernel
    assert kernel != twin
    assert {kernel: 1, twin: 2}[kernel] == 1
    before = hash(kernel)
    kernel.label = "renamed"
    assert hash(kernel) == before


@EVERY_KERNEL
def test_a_damaged_or_foreign_archive_is_refused(cls: type, device: ml.Device) -> None:
    archive = changed_throughout(cls, device).to_bytes()
    assert isinstance(archive, bytes)
    damaged = [archive[:size] for size in range(len(archive))]
    damaged += [archive + b"\0", b"\0" + archive, archive + archive]
    for i, bit in itertools.product(range(len(archive)), (0x01, 0x10, 0x80, 0xFF)):
        damaged.append(archive[:i] + bytes([archive[i] ^ bit]) + archive[i + 1 :])
    damaged += [make(other, device).to_bytes() for other in CLASSES if other is not cls]
    for data in damaged:
        with pytest.raises(ValueError, match=r"\w"):
            cls.from_bytes(data, device)


@EVERY_KERNEL
def test_descriptions_tell_class_label_and_changed_values(cls: type, device: ml.Device) -> None:
    kernel = changed_throughout(cls, device)
    kernel.label = "head"
    for text in (str(kernel), repr(kernel), kernel.debug_description):
        assert cls.__name__ in text
        assert "head" in text
        if cls is not ml.MPSNNInitialGradient:
            assert "softmax_cross_entropy" in text.lower()
            assert "mean" in text.lower()
    if cls is not ml.MPSNNInitialGradient:
        assert "2.5" in kernel.debug_description


@EVERY_KERNEL
def test_objc_pointer_is_an_id_on_metal_and_none_on_the_cpu(cls: type, device: ml.Device) -> None:
    pointer = make(cls, device).objc_pointer
    assert (pointer is None) == (device.kind != "metal")
    assert pointer is None or (isinstance(pointer, int) and pointer != 0)


def test_properties_are_captured_when_encoded(device: ml.Device) -> None:
    kernel = make(ml.MPSNNLossGradient, device)
    kernel.weight, kernel.delta = 2.0, 1.0
    buffer = device.make_command_queue().make_command_buffer()
    early = encode(kernel, buffer)
    kernel.weight, kernel.delta, kernel.compute_label_gradients = 10.0, 4.0, True
    late = encode(kernel, buffer)
    kernel.weight = 100.0
    buffer.commit()
    buffer.wait_until_completed(timeout=LONG)
    assert early.to_array().ravel().tolist() == [2.0, -2.0, 1.0, 2.0]
    assert late.to_array().ravel().tolist() == [-30.0, 40.0, -5.0, -40.0]


def test_a_state_holds_the_values_of_its_forward_encode_and_beats_the_properties(
    device: ml.Device,
) -> None:
    forward, gradient = make(ml.MPSNNForwardLoss, device), make(ml.MPSNNLossGradient, device)
    for name, value in PARAMETERS.items():
        setattr(forward, name, value)
    states = forward.result_state_batch(np.zeros((2, 2), np.float32))
    assert len(states) == 2
    assert all(isinstance(state, ml.MPSState) for state in states)
    buffer = device.make_command_queue().make_command_buffer()
    encode(forward, buffer, destination_states=states)
    for name in PARAMETERS:
        setattr(forward, name, 0.5)
    for state in states:
        assert {name: getattr(state, name) for name in PARAMETERS} == PARAMETERS
        with pytest.raises(AttributeError):
            state.weight = 1.0
    with_states = encode(gradient, buffer, source_states=states)
    with_one = encode(gradient, buffer, source_states=states[:1])
    encode(forward, buffer, destination_states=states)  # overwrites, after the capture above
    assert states[1].delta == 0.5
    overwritten = encode(gradient, buffer, source_states=states)
    buffer.commit()
    buffer.wait_until_completed(timeout=LONG)
    expected = np.float32(0.1) * np.array([2.5, -2.5, 0.5, 2.5], np.float32)
    for batch in (with_states, with_one):
        assert batch.to_array().ravel() == pytest.approx(expected, rel=1e-6)
    assert overwritten.to_array().ravel().tolist() == [0.25, -0.25, 0.25, 0.25]
    assert properties(gradient)["weight"] == 1.0  # nothing is written back
    assert result(gradient).ravel().tolist() == [1.0, -1.0, 0.5, 1.0]


def test_each_image_takes_the_values_of_its_own_state() -> None:
    device = ml.cpu_device()
    forward, gradient = make(ml.MPSNNForwardLoss, device), make(ml.MPSNNLossGradient, device)
    states = []
    for weight in (2.0, 7.0):
        forward.weight = weight
        state = forward.result_state_batch(np.zeros((1, 2), np.float32))
        result(forward, destination_states=state)
        states += state
    assert result(gradient, source_states=states).ravel().tolist() == [2.0, -2.0, 3.5, 7.0]


@pytest.mark.parametrize(("dtype", "loss_dtype"), [("f4", "f4"), ("f2", "f4"), ("f8", "f8")])
def test_results_have_the_shape_and_format_of_the_contract(dtype: str, loss_dtype: str) -> None:
    device = ml.cpu_device()
    y = np.ones((2, 3, 4, 5), dtype)
    with device.make_command_queue().make_command_buffer() as buffer:
        for reduction, loss_shape in (("none", y.shape), ("sum", (2, 1, 1, 1))):
            forward = make(ml.MPSNNForwardLoss, device, reduction=reduction)
            loss = forward.encode_batch(buffer, y, y)
            ones = ml.MPSNNInitialGradient(device).encode_batch(buffer, loss)
            gradient = make(ml.MPSNNLossGradient, device, reduction=reduction)
            slope = gradient.encode_batch(buffer, ones, y, y)
            assert (loss.shape, loss.dtype) == (loss_shape, loss_dtype)
            assert (ones.shape, ones.dtype) == (loss_shape, loss_dtype)
            assert (slope.shape, slope.dtype) == (y.shape, dtype)
    assert (ones.to_array() == 1).all()


def test_float16_and_float32_mix_and_gradients_follow_their_subject(device: ml.Device) -> None:
    kernel = make(ml.MPSNNLossGradient, device)
    single, half = np.ones((2, 2), np.float32), np.ones((2, 2), np.float16)
    assert result(kernel, labels=half).dtype == np.float32
    assert result(kernel, source_images=half, labels=single).dtype == np.float16
    kernel.compute_label_gradients = True
    assert result(kernel, source_images=half, labels=single).dtype == np.float32


def test_arguments_may_be_arrays_batches_or_lists_of_images(device: ml.Device) -> None:
    kernel = make(ml.MPSNNLossGradient, device)
    values = {"source_images": 1, "labels": 2, "weights": 3}
    arrays = {name: np.full((2, 2), value, np.float32) for name, value in values.items()}
    arrays["source_gradients"] = np.ones((2, 1), np.float32)
    batches = {name: ml.MPSImageBatch.from_array(device, a) for name, a in arrays.items()}
    rank4 = {name: a.reshape(2, 1, 1, -1) for name, a in arrays.items()}
    images = {name: list(batch) for name, batch in batches.items()}
    results = [result(kernel, **form) for form in (arrays, rank4, batches, images)]
    assert all((r == [[[-3, -3]]]).all() for r in results)


def test_a_destination_is_written_in_place_and_returned(device: ml.Device) -> None:
    for cls, name, shape in (
        (ml.MPSNNLossGradient, "destination_gradients", (2, 2)),
        (ml.MPSNNForwardLoss, "destination_images", (2, 1)),
    ):
        kernel = make(cls, device)
        for form in (np.ascontiguousarray, lambda a: ml.MPSImageBatch.from_array(device, a)):
            array = np.full(shape, -7, np.float32)
            destination = form(array)
            returned = result(kernel, **{name: destination})
            assert (returned == result(kernel)).all()
            if device.kind == "cpu":
                assert (array.reshape(returned.shape) == returned).all()
            if not isinstance(destination, np.ndarray):
                assert destination.to_array().tobytes() == returned.tobytes()


@pytest.mark.parametrize("shape", [(2, 3), (2, 4, 5, 3)])
def test_calling_a_kernel_is_encode_commit_and_wait_in_one(
    shape: tuple[int, ...], device: ml.Device
) -> None:
    y = np.linspace(-3, 3, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    t, v = y[::-1].copy(), np.abs(y)
    unit = np.ones((2, *[1] * (len(shape) - 1)), np.float32)
    gradient, forward = make(ml.MPSNNLossGradient, device), make(ml.MPSNNForwardLoss, device)
    with device.make_command_queue().make_command_buffer() as buffer:
        slope = gradient.encode_batch(buffer, 3 * unit, y, t, v)
        loss = forward.encode_batch(buffer, y, t, v)
    called = gradient(y, t, 3 * unit, v)
    assert called.shape == shape
    assert called.tobytes() == slope.to_array().tobytes()
    assert forward(y, t, v).shape == unit.shape
    assert forward(y, t, v).tobytes() == loss.to_array().tobytes()
    assert gradient(y, t).tobytes() == gradient(y, t, source_gradient=unit).tobytes()
    for kernel, out in ((gradient, np.empty_like(y)), (forward, np.empty_like(unit))):
        assert kernel(y, t, weights=v, out=out) is out
        assert out.tobytes() == kernel(y, t, weights=v).tobytes()
    assert called.dtype == np.float32


# A gradient of the Huber loss with delta 0.5, label "x", primary_edge_mode CLAMP and
# secondary_stride_in_pixels_y 3, as version 2 wrote it first.
ARCHIVE = bytes.fromhex(
    "4d50534e4e4c6f7302000000020000000600000002000000040000000e00000001000000000000000000000000"
    "00f03f000000000000000048afbc9af2d77a3e000000000000e03f000000000000000008000000000000000100"
    "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
    "001100000000000000030000000000000000000000000000000000000000000000000000000000000000000000"
    "00000000000000000000000001000000785b7dc2ed"
)


def test_an_archive_means_for_ever_what_it_meant_when_it_was_written(device: ml.Device) -> None:
    kernel = ml.MPSNNLossGradient.from_bytes(ARCHIVE, device)
    assert (kernel.delta, kernel.label) == (0.5, "x")
    assert kernel.primary_edge_mode == ml.MPSImageEdgeMode.CLAMP
    assert kernel.secondary_stride_in_pixels_y == 3
    assert kernel.to_bytes() == ARCHIVE
