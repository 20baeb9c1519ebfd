"""Images and batches: storage without a copy, lifetime, reading before completion, the Sequence."""

from __future__ import annotations

import ctypes
import gc
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mpsnn_loss as ml
import numpy as np
import pytest

LONG = 60.0  # seconds: the end of a test that hangs
SHAPE = (3, 2, 4, 5)


def host(shape: tuple[int, ...] = SHAPE, dtype: Any = np.float32) -> np.ndarray:
    """An array that owns its memory, so that its own life is that of the memory."""
    return np.arange(np.prod(shape)).astype(dtype).reshape(shape).copy()


def batch_of(device: ml.Device, array: np.ndarray) -> ml.MPSImageBatch:
    return ml.MPSImageBatch.from_array(device, array)


@pytest.fixture(params=["float32", "float16", "float64"])
def channel_format(request: pytest.FixtureRequest, device: ml.Device) -> str:
    supported, reason = device.supports(request.param)
    if not supported:
        pytest.skip(reason)
    return request.param


@contextmanager
def blocked(queue: ml.CommandQueue) -> Iterator[None]:
    """Holds back everything that is committed inside: an enqueued buffer stands before it."""
    gate = queue.make_command_buffer()
    gate.enqueue()
    try:
        yield
    finally:
        gate.commit()
        gate.wait_until_completed(timeout=LONG)


def becomes_true(condition: Callable[[], bool]) -> bool:
    """Whether it does within the time that a last reference on another thread may need."""
    end = time.monotonic() + LONG
    while not condition() and time.monotonic() < end:
        gc.collect()
        time.sleep(0.001)
    return condition()


def absolute_error(device: ml.Device) -> ml.MPSNNLossGradient:
    return ml.MPSNNLossGradient(device, ml.MPSCNNLossDescriptor("mean_absolute_error", "sum"))


def test_a_new_image_is_zero_and_tells_its_descriptor(
    device: ml.Device, channel_format: str
) -> None:
    descriptor = ml.MPSImageDescriptor(channel_format, width=4, height=2, feature_channels=5)
    image = ml.MPSImage(device, descriptor)
    assert (image.width, image.height, image.feature_channels) == (4, 2, 5)
    assert image.channel_format == channel_format
    assert image.device == device
    assert image.read_bytes() == bytes(40 * np.dtype(channel_format).itemsize)


def test_image_bytes_are_height_width_channels_in_the_storage_type(
    device: ml.Device, channel_format: str
) -> None:
    array = host(dtype=channel_format)
    descriptor = ml.MPSImageDescriptor(channel_format, width=4, height=2, feature_channels=5)
    for i, part in enumerate(batch_of(device, array)):
        assert part.read_bytes() == array[i].tobytes()
        image = ml.MPSImage(device, descriptor)
        for source in (array[i].tobytes(), np.asarray(array[i]), memoryview(array[i].tobytes())):
            image.write_bytes(bytes(len(array[i].tobytes())))
            image.write_bytes(source)
            assert image.read_bytes() == array[i].tobytes()


def test_image_label_is_read_write_and_none_by_default(device: ml.Device) -> None:
    image = batch_of(device, host())[1]
    assert image.label is None
    image.label = "logits"
    assert image.label == "logits"


def test_images_are_equal_where_they_are_the_same_storage(device: ml.Device) -> None:
    batch, other = batch_of(device, host()), batch_of(device, host())
    assert batch[0] == batch[0] == batch[-3]
    assert hash(batch[0]) == hash(batch[-3])
    assert batch[0] != batch[1]
    assert batch[0] != other[0]
    assert batch[0] != "an image"


def test_batch_keeps_values_shape_and_dtype(device: ml.Device, channel_format: str) -> None:
    array = host(dtype=channel_format)
    batch = batch_of(device, array)
    assert batch.shape == SHAPE
    assert batch.dtype == np.dtype(channel_format)
    copy = batch.to_array()
    assert copy.dtype == array.dtype
    assert copy.tobytes() == array.tobytes()
    assert (np.asarray(batch) == array).all()
    assert (np.asarray(batch, dtype=np.float64) == array).all()


def test_rows_and_channels_are_one_pixel_images(device: ml.Device) -> None:
    array = host((4, 7))
    batch = batch_of(device, array)
    assert batch.shape == (4, 1, 1, 7)
    assert (batch[0].width, batch[0].height, batch[0].feature_channels) == (1, 1, 7)
    assert (batch.to_array()[:, 0, 0] == array).all()


def test_to_array_is_always_a_fresh_copy_or_the_given_array(device: ml.Device) -> None:
    array = host()
    batch = batch_of(device, array)
    first, second = batch.to_array(), batch.to_array()
    assert not any(np.shares_memory(a, b) for a, b in ((first, second), (first, array)))
    out = np.zeros(SHAPE, np.float32)
    assert batch.to_array(out) is out
    assert batch.to_array(out=out) is out
    assert (out == array).all()


@pytest.mark.parametrize("shape", [SHAPE, (4, 7)])
def test_on_the_cpu_a_contiguous_array_is_shared_and_not_copied(shape: tuple[int, ...]) -> None:
    array = host(shape)
    batch = batch_of(ml.cpu_device(), array)
    view = np.asarray(batch)
    assert view.ctypes.data == array.ctypes.data
    assert np.shares_memory(view, array)
    array.flat[0] = 42
    assert view.flat[0] == 42
    batch[1].write_bytes(bytes(view[1].nbytes))
    assert not array[1].any()


def test_on_the_cpu_other_arrays_are_copied_and_read_only_ones_stay_read_only() -> None:
    array = host()
    for odd in (array[:, ::-1], array[..., ::2], array.T):
        batch = batch_of(ml.cpu_device(), odd)
        assert not np.shares_memory(np.asarray(batch), array)
        assert (batch.to_array() == odd).all()
    array.flags.writeable = False
    assert not np.asarray(batch_of(ml.cpu_device(), array)).flags.writeable


def test_numpy_decides_about_copies_of_a_finished_batch() -> None:
    batch = batch_of(ml.cpu_device(), host())
    assert np.shares_memory(np.asarray(batch), np.asarray(batch))
    assert not np.shares_memory(np.array(batch), np.asarray(batch))
    assert np.shares_memory(batch.__array__(), np.asarray(batch))
    assert batch.__array__(np.float64).dtype == np.float64
    assert memoryview(batch).shape == SHAPE
    assert np.shares_memory(np.from_dlpack(batch), np.asarray(batch))
    assert (np.from_dlpack(batch) == host()).all()


def test_an_image_is_an_array_of_its_own_rank(device: ml.Device) -> None:
    array = host()
    for i, image in enumerate(batch_of(device, array)):
        assert (np.asarray(image) == array[i]).all()
        assert np.asarray(image).shape == SHAPE[1:]
        assert image.__array__(np.float64).dtype == np.float64
    alone = ml.MPSImage(
        device, ml.MPSImageDescriptor("float16", width=4, height=2, feature_channels=5)
    )
    assert np.asarray(alone).dtype == np.float16
    assert np.asarray(alone).shape == (2, 4, 5)
    assert not np.asarray(alone).any()


def test_on_the_cpu_an_image_shares_the_memory_of_its_batch() -> None:
    array = host()
    batch = batch_of(ml.cpu_device(), array)
    for i, image in enumerate(batch):
        for view in (np.asarray(image), np.from_dlpack(image), image.__array__(copy=False)):
            assert view.ctypes.data == array[i].ctypes.data
            assert (view == array[i]).all()
        view = memoryview(image)
        assert view.shape == SHAPE[1:]
        assert view.strides == array[i].strides
        assert (view.format, view.nbytes, view.readonly) == ("f", array[i].nbytes, False)
        assert image.__dlpack_device__() == (1, 0)
        assert not np.shares_memory(np.array(image), array)
        assert not np.shares_memory(image.__array__(copy=True), array)
    np.asarray(batch[2])[1, 3, 4] = -1
    assert array[2, 1, 3, 4] == -1
    chosen = batch[::-1][0]
    assert np.asarray(chosen).ctypes.data == array[2].ctypes.data


def test_the_views_of_an_image_follow_the_rules_of_those_of_a_batch() -> None:
    array = host()
    array.flags.writeable = False
    image = batch_of(ml.cpu_device(), array)[1]
    assert not np.asarray(image).flags.writeable
    assert memoryview(image).readonly
    with pytest.raises(ValueError, match="copy must not be False where the dtype changes"):
        image.__array__(np.float64, copy=False)
    with pytest.raises(TypeError, match="dtype must be a dtype of NumPy"):
        image.__array__(3)
    with pytest.raises(TypeError, match="copy must be True or False"):
        image.__dlpack__(copy="no")
    get_buffer = ctypes.pythonapi.PyObject_GetBuffer
    get_buffer.argtypes = [ctypes.py_object, ctypes.c_void_p, ctypes.c_int]
    for flags, words in ((0x58, "not Fortran contiguous"), (0x1, "borrows read-only memory")):
        with pytest.raises(BufferError, match=f"the image .*{words}"):
            get_buffer(image, ctypes.create_string_buffer(200), flags)


@pytest.mark.parametrize("view_of", [np.asarray, np.from_dlpack, memoryview])
def test_a_view_of_an_image_keeps_the_memory(view_of: Callable[[ml.MPSImage], Any]) -> None:
    array = host()
    alive = weakref.ref(array)
    view = view_of(batch_of(ml.cpu_device(), array)[1])
    expected = array[1].copy()
    del array
    gc.collect()
    assert alive() is not None
    assert (np.asarray(view) == expected).all()
    del view
    assert becomes_true(lambda: alive() is None)


def test_an_image_is_no_batch_where_images_are_arguments(device: ml.Device) -> None:
    images = batch_of(device, host())
    with device.make_command_queue().make_command_buffer() as buffer:
        for wrong in (images[0], np.asarray(images[0])):
            with pytest.raises((TypeError, ValueError), match=r"source_images must"):
                ml.MPSNNInitialGradient(device).encode_batch(buffer, wrong)


def test_batch_is_a_sequence_of_images(device: ml.Device) -> None:
    batch = batch_of(device, host())
    images = list(batch)
    assert isinstance(batch, Sequence)
    assert len(batch) == len(images) == 3
    assert all(isinstance(image, ml.MPSImage) for image in images)
    assert [batch[i] for i in range(-3, 3)] == images + images
    assert list(reversed(batch)) == images[::-1]
    assert batch[:] == images
    assert isinstance(batch[1:], list)
    assert batch[2:0:-1] == images[2:0:-1]
    assert batch[1] in batch
    assert batch.index(images[2]) == 2
    assert batch.count(images[0]) == 1


@pytest.mark.parametrize("index", [3, -4, 2**70, -(2**70)])
def test_an_index_beyond_the_batch_is_an_index_error(device: ml.Device, index: int) -> None:
    batch = ml.MPSImageBatch.from_array(device, np.zeros((3, 2), "f4"))
    with pytest.raises(IndexError, match=f"{index} is out of range for 3 images"):
        batch[index]


def test_a_consumer_of_fortran_order_is_refused() -> None:
    batch = ml.MPSImageBatch.from_array(ml.cpu_device(), np.zeros((3, 2), "f4"))
    get_buffer = ctypes.pythonapi.PyObject_GetBuffer
    get_buffer.argtypes = [ctypes.py_object, ctypes.c_void_p, ctypes.c_int]
    strides, fortran = 0x18, 0x40  # PyBUF_STRIDES, and what makes it PyBUF_F_CONTIGUOUS
    with pytest.raises(BufferError, match="not Fortran contiguous"):
        get_buffer(batch, ctypes.create_string_buffer(200), strides | fortran)


def test_images_chosen_from_batches_form_an_argument(device: ml.Device) -> None:
    y, t = host((4, 3)), np.full((4, 3), 5, np.float32)
    images, labels = batch_of(device, y), batch_of(device, t)
    kernel = absolute_error(device)
    order = [3, 0, 2]
    with device.make_command_queue().make_command_buffer() as buffer:
        ones = ml.MPSNNInitialGradient(device).encode_batch(buffer, batch_of(device, y[:3, :1]))
        result = kernel.encode_batch(buffer, ones, [images[i] for i in order], labels[1:])
    assert (result.to_array()[:, 0, 0] == np.sign(y[order] - 5)).all()


def test_reading_before_completion_is_refused_at_every_door(device: ml.Device) -> None:
    source = batch_of(device, host())
    queue = device.make_command_queue()
    buffer = queue.make_command_buffer()
    result = ml.MPSNNInitialGradient(device).encode_batch(buffer, source)

    def refused() -> None:
        for read in (result.to_array, result[0].read_bytes):
            with pytest.raises(RuntimeError):
                read()
        for images in (result, result[0]):
            with pytest.raises(RuntimeError):
                np.asarray(images)
            if device.kind == "cpu":
                for export in (memoryview, np.from_dlpack):
                    with pytest.raises(BufferError):
                        export(images)

    refused()
    with blocked(queue):
        buffer.commit()
        refused()
        assert result.shape == SHAPE  # what needs no values may be asked for
        assert (source.to_array() == host()).all()
    buffer.wait_until_completed(timeout=LONG)
    assert (np.asarray(result) == 1).all()
    if device.kind == "cpu":
        assert (np.from_dlpack(result) == 1).all()
        assert memoryview(result).nbytes == 4 * 120


def test_a_given_destination_is_unreadable_through_its_batch_too(device: ml.Device) -> None:
    y = host((2, 3))
    destination = batch_of(device, np.zeros((2, 3), np.float32))
    assert not destination.to_array().any()
    queue = device.make_command_queue()
    buffer = queue.make_command_buffer()
    absolute_error(device).encode_batch(
        buffer, np.ones((2, 1), np.float32), y + 1, y, destination_gradients=destination
    )
    with pytest.raises(RuntimeError):
        destination.to_array()
    with pytest.raises(RuntimeError):
        destination[0].read_bytes()
    buffer.commit()
    buffer.wait_until_completed(timeout=LONG)
    assert (destination.to_array() == 1).all()


def test_a_batch_and_each_of_its_images_keep_a_borrowed_array_alive() -> None:
    array = host()
    alive = weakref.ref(array)
    batch = batch_of(ml.cpu_device(), array)
    view = np.asarray(batch)
    image = batch[2]
    expected = array[2].tobytes()
    del array, batch
    gc.collect()
    assert alive() is not None
    del view
    gc.collect()
    assert image.read_bytes() == expected
    del image
    assert becomes_true(lambda: alive() is None)


def test_a_view_of_a_batch_keeps_its_storage_alive() -> None:
    view = np.asarray(batch_of(ml.cpu_device(), host()[:, ::-1]))
    tensor = np.from_dlpack(batch_of(ml.cpu_device(), host()[:, ::-1]))
    gc.collect()
    filler = [np.full(SHAPE, -1, np.float32) for _ in range(100)]  # would reuse freed storage
    assert (view == host()[:, ::-1]).all()
    assert (tensor == host()[:, ::-1]).all()
    assert len(filler) == 100


def test_a_buffer_in_flight_keeps_every_borrowed_array_alive_and_then_lets_go() -> None:
    device = ml.cpu_device()
    queue = device.make_command_queue()
    arrays = [host((2, 3)), host((2, 3)), host((2, 1)), host((2, 3)), host((2, 3))]
    alive = [weakref.ref(array) for array in arrays]
    y, t, g, v, destination = arrays
    buffer = queue.make_command_buffer()
    absolute_error(device).encode_batch(buffer, g, y, t, v, destination_gradients=destination)
    del y, t, g, v, destination, arrays
    gc.collect()
    assert all(ref() is not None for ref in alive)
    with blocked(queue):
        buffer.commit()
        gc.collect()
        assert all(ref() is not None for ref in alive)
    buffer.wait_until_completed(timeout=LONG)
    assert becomes_true(lambda: all(ref() is None for ref in alive))
    assert buffer.status is ml.CommandBufferStatus.COMPLETED  # and it is still held


def test_a_dropped_buffer_lets_go_of_what_it_would_have_used() -> None:
    array = host((2, 3))
    alive = weakref.ref(array)
    buffer = ml.cpu_device().make_command_queue().make_command_buffer()
    ml.MPSNNInitialGradient(ml.cpu_device()).encode_batch(buffer, array)
    del array, buffer
    assert becomes_true(lambda: alive() is None)


class OnlyDLPack:
    """An array that shows itself through DLPack alone, as tensors of other libraries do."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __dlpack__(self, **arguments: Any) -> Any:
        return self._array.__dlpack__(**arguments)

    def __dlpack_device__(self) -> tuple[int, int]:
        device: tuple[int, int] = self._array.__dlpack_device__()
        return device


class WeaklyReferenced(np.ndarray):
    pass


def test_images_keep_the_memory_of_a_tensor_that_nobody_else_has() -> None:
    memory = np.full((2, 3, 3, 4), 7, "f4").view(WeaklyReferenced)
    alive = weakref.ref(memory)
    images = ml.MPSImageBatch.from_array(ml.cpu_device(), OnlyDLPack(memory))
    del memory
    gc.collect()
    assert alive() is not None
    assert np.all(images.to_array() == 7)
    del images
    gc.collect()
    assert alive() is None
