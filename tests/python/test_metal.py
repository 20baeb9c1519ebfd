"""What only Metal devices have: foreign objects, images that kernels return, keyed archives."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import mpsnn_loss as ml
import numpy as np
import objc
import pytest
from reference import losses
from softmetal import Softmetal
from tested_devices import DEVICES

METAL = [device for device in DEVICES if device.kind == "metal"]
SHAPE = (3, 2, 4, 5)


NO_METAL = pytest.param(None, marks=pytest.mark.skip("there is no Metal device"), id="no Metal")


@pytest.fixture(params=METAL or [NO_METAL], ids=lambda device: device.name)
def metal(request: pytest.FixtureRequest) -> ml.Device:
    return request.param


@pytest.fixture
def queue(metal: ml.Device) -> ml.CommandQueue:
    return metal.make_command_queue()


@pytest.fixture
def faults(double: Softmetal) -> Iterator[Callable[..., None]]:
    yield double.set_fault
    double.reset_faults()


def arrays(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=SHAPE).astype("f4"), rng.random(SHAPE).astype("f4")


def ones(device: ml.Device) -> ml.MPSImageBatch:
    return ml.MPSImageBatch.from_array(device, np.ones(SHAPE, "f4"))


def gradient_kernel(device: ml.Device, loss_type: str = "huber") -> ml.MPSNNLossGradient:
    return ml.MPSNNLossGradient(device, ml.MPSCNNLossDescriptor(loss_type))


def expected(predictions: np.ndarray, labels: np.ndarray, loss_type: str = "huber") -> np.ndarray:
    return ml.loss_gradient(
        predictions, labels, loss_type, reduction="none", device=ml.cpu_device()
    )


def close(actual: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(actual, wanted, rtol=1e-6, atol=1e-7)


# --- Images that kernels return ---


@pytest.mark.parametrize("dtype", ["f4", "f2"])
def test_returned_images_equal_those_of_our_own(
    metal: ml.Device, queue: ml.CommandQueue, dtype: str
) -> None:
    predictions, labels = (a.astype(dtype) for a in arrays())
    forward = ml.MPSNNForwardLoss(metal, ml.MPSCNNLossDescriptor("huber", "sum"))
    gradient = gradient_kernel(metal)
    initial = ml.MPSNNInitialGradient(metal)
    results = []
    for allocator in (None, "image"):
        with queue.make_command_buffer() as buffer:
            images = ml.MPSImageBatch.from_array(metal, predictions)
            g = initial.encode_batch(buffer, images, allocator=allocator)
            results += [
                g,
                forward.encode_batch(buffer, images, labels, allocator=allocator),
                gradient.encode_batch(buffer, g, images, labels, allocator=allocator),
            ]
    for own, returned in zip(results[:3], results[3:], strict=True):
        assert returned.dtype == own.dtype
        assert np.array_equal(returned.to_array(), own.to_array())


def test_a_returning_encode_leaves_the_kernel_as_it_was(
    metal: ml.Device, queue: ml.CommandQueue
) -> None:
    kernel = gradient_kernel(metal)
    kernel.weight, kernel.label = 0.3, "kept"
    before = kernel.debug_description
    with queue.make_command_buffer() as buffer:
        kernel.encode_batch(buffer, ones(metal), *arrays(), allocator="image")
    assert kernel.debug_description == before


def test_temporary_images_serve_later_kernels_and_nobody_else(
    metal: ml.Device, queue: ml.CommandQueue
) -> None:
    predictions, labels = arrays()
    kernel = gradient_kernel(metal)
    with queue.make_command_buffer() as buffer:
        g = ml.MPSNNInitialGradient(metal).encode_batch(
            buffer, predictions, allocator="temporary_image"
        )
        results = [kernel.encode_batch(buffer, g, predictions, labels) for _ in range(3)]
        with (
            pytest.raises(RuntimeError, match="temporary"),
            queue.make_command_buffer() as other,
        ):
            kernel.encode_batch(other, g, predictions, labels)
    for result in results:
        close(result.to_array(), expected(predictions, labels))
    with pytest.raises(RuntimeError, match="temporary"):
        g.to_array()
    with pytest.raises(BufferError, match="temporary"):
        memoryview(g)


def test_unused_temporary_images_of_a_dropped_buffer_go_back(
    metal: ml.Device, queue: ml.CommandQueue
) -> None:
    buffer = queue.make_command_buffer()
    ml.MPSNNInitialGradient(metal).encode_batch(
        buffer, np.ones(SHAPE, "f4"), allocator="temporary_image"
    )
    del buffer  # the double judges read counts that are left over


def test_an_allocator_and_destinations_exclude_each_other(
    metal: ml.Device, queue: ml.CommandQueue
) -> None:
    predictions, labels = arrays()
    with queue.make_command_buffer() as buffer, pytest.raises(ValueError, match="allocator"):
        gradient_kernel(metal).encode_batch(
            buffer,
            ones(metal),
            predictions,
            labels,
            destination_gradients=np.empty(SHAPE, "f4"),
            allocator="image",
        )


def test_without_kernels_that_return_images_an_allocator_is_refused() -> None:
    cpu = ml.cpu_device()
    with (
        cpu.make_command_queue().make_command_buffer() as buffer,
        pytest.raises(RuntimeError, match="allocator must be None"),
    ):
        ml.MPSNNInitialGradient(cpu).encode_batch(buffer, np.ones(SHAPE, "f4"), allocator="image")


def test_states_go_through_returning_encodes(metal: ml.Device, queue: ml.CommandQueue) -> None:
    predictions, labels = arrays()
    forward = ml.MPSNNForwardLoss(metal, ml.MPSCNNLossDescriptor("huber", delta=0.25))
    kernel = gradient_kernel(metal)
    states = forward.result_state_batch(ml.MPSImageBatch.from_array(metal, predictions))
    with queue.make_command_buffer() as buffer:
        forward.encode_batch(
            buffer, predictions, labels, destination_states=states, allocator="image"
        )
        result = kernel.encode_batch(
            buffer, ones(metal), predictions, labels, source_states=states, allocator="image"
        )
    wanted = ml.loss_gradient(
        predictions, labels, "huber", reduction="none", delta=0.25, device=ml.cpu_device()
    )
    close(result.to_array(), wanted)
    assert kernel.delta == 1.0


# --- Packing ---


def test_one_call_functions_pack_rows_into_one_image(metal: ml.Device, double: Softmetal) -> None:
    y = np.zeros((256, 1000), "f4")
    kernel = ml.MPSNNLossGradient(metal, ml.MPSCNNLossDescriptor("mean_squared_error"))
    double.reset_counters()
    kernel(y, y, np.ones((256, 1000), "f4"))
    unpacked = double.counter("images_made"), double.counter("slices_written")
    double.reset_counters()
    ml.loss_gradient(y, y, "mean_squared_error", device=metal)
    packed = double.counter("images_made"), double.counter("slices_written")
    assert unpacked == (4 * 256, 64000)
    assert packed == (4, 250)


@pytest.mark.parametrize("rows", [1, 16411, 4 * 8209])
def test_pixels_that_fit_no_rectangle_go_into_two(metal: ml.Device, rows: int) -> None:
    rng = np.random.default_rng(rows)
    shape = (rows, 1, 1, 3)
    y, t = rng.normal(size=shape).astype("f4"), rng.random(shape).astype("f4")
    v = rng.integers(0, 2, shape).astype("f4")
    for loss_type in ("huber", "softmax_cross_entropy"):
        for reduction in ("none", "sum_by_non_zero_weights"):
            for weights in (None, v):
                options = {"reduction": reduction, "weights": weights, "weight": 0.7}
                loss, gradient = ml.loss_and_gradient(y, t, loss_type, **options, device=metal)
                call = losses.make_call(y, t, loss_type, reduce_across_batch=True, **options)
                wanted, bound = call.forward(), losses.forward_bound(call, "float32")
                if reduction != "none":
                    wanted, bound = wanted[0], bound[0]
                what = f"{loss_type} {reduction}"
                losses.assert_within(loss, wanted, bound, what)
                bound = losses.gradient_bound(call, "float32")
                losses.assert_within(gradient, call.gradient(), bound, what)


# --- Objects of others ---


class PyObjC:
    """What PyObjC's objects show of themselves."""

    def __init__(self, address: int) -> None:
        self.address = address

    def __c_void_p__(self) -> ctypes.c_void_p:
        return ctypes.c_void_p(self.address)


def test_devices_and_queues_are_found_by_their_pointers(
    metal: ml.Device, queue: ml.CommandQueue
) -> None:
    assert metal.objc_pointer is not None
    assert queue.objc_pointer is not None
    assert ml.Device.from_objc_pointer(metal.objc_pointer) is metal
    assert ml.Device.from_objc_pointer(PyObjC(metal.objc_pointer)) is metal
    adopted = ml.CommandQueue.from_objc_pointer(PyObjC(queue.objc_pointer))
    assert adopted.device is metal
    assert adopted.objc_pointer == queue.objc_pointer


@pytest.mark.parametrize(
    "kind", [ml.Device, ml.CommandQueue, ml.CommandBuffer, ml.MPSImage, ml.MPSImageBatch]
)
def test_pointers_to_nothing_or_to_another_class_are_refused(metal: ml.Device, kind: type) -> None:
    for nil in (0, PyObjC(0)):
        with pytest.raises(ValueError, match="nil"):
            kind.from_objc_pointer(nil)
    with pytest.raises(TypeError, match="pointer must be an int"):
        kind.from_objc_pointer("1")
    kernel = gradient_kernel(metal)
    with pytest.raises(TypeError, match="pointer must be of"):
        kind.from_objc_pointer(kernel.objc_pointer)


@pytest.mark.skipif(any(d.kind == "metal" for d in ml.devices()), reason="there is a Metal device")
def test_without_metal_pointers_are_refused_with_a_sentence() -> None:
    for kind in (ml.Device, ml.CommandQueue, ml.CommandBuffer, ml.MPSImage, ml.MPSImageBatch):
        with pytest.raises(RuntimeError, match="needs Metal"):
            kind.from_objc_pointer(1)


@pytest.mark.parametrize("argument", ["predictions", "labels", "weights", "source_gradient"])
def test_a_kernel_is_called_on_images_of_its_own_device(metal: ml.Device, argument: str) -> None:
    for here, there in ((metal, ml.cpu_device()), (ml.cpu_device(), metal)):
        predictions, labels = arrays()
        given: dict[str, Any] = {"predictions": predictions, "labels": labels}
        given[argument] = ones(there)
        with pytest.raises(RuntimeError, match=f"{argument} must be on the device of the kernel"):
            gradient_kernel(here)(**given)


@pytest.fixture
def foreign(queue: ml.CommandQueue) -> Iterator[int]:
    """A command buffer that another library made."""
    assert queue.objc_pointer is not None
    address = objc.command_buffer(queue.objc_pointer)
    yield address
    objc.release(address)


def test_a_kernel_goes_into_anothers_buffer_who_commits_it(metal: ml.Device, foreign: int) -> None:
    predictions, labels = arrays()
    buffer = ml.CommandBuffer.from_objc_pointer(foreign)
    seen: list[ml.CommandBuffer] = []
    buffer.add_completed_handler(seen.append)
    kernel = gradient_kernel(metal)
    results = [
        kernel.encode_batch(buffer, ones(metal), predictions, labels, allocator=allocator)
        for allocator in (None, "image")
    ]
    with pytest.raises(RuntimeError, match="not completed"):
        results[0].to_array()
    with pytest.raises(RuntimeError, match="committed"):
        buffer.wait_until_completed()
    objc.commit_and_wait(foreign)
    buffer.wait_until_completed()
    assert buffer.status == ml.CommandBufferStatus.COMPLETED
    for result in results:
        close(result.to_array(), expected(predictions, labels))
    assert seen == [buffer]
    with pytest.raises(RuntimeError, match="not be committed"):
        kernel.encode_batch(buffer, ones(metal), predictions, labels)
    with pytest.raises(RuntimeError, match="not be committed"):
        ml.CommandBuffer.from_objc_pointer(foreign)


def test_anothers_buffer_may_be_committed_by_us(metal: ml.Device, foreign: int) -> None:
    predictions, labels = arrays()
    with ml.CommandBuffer.from_objc_pointer(foreign) as buffer:
        result = gradient_kernel(metal).encode_batch(buffer, ones(metal), predictions, labels)
    assert buffer.gpu_end_time >= buffer.gpu_start_time > 0
    close(result.to_array(), expected(predictions, labels))


def test_results_outlive_our_object_of_anothers_buffer(metal: ml.Device, foreign: int) -> None:
    predictions, labels = arrays()
    buffer = ml.CommandBuffer.from_objc_pointer(foreign)
    result = gradient_kernel(metal).encode_batch(buffer, ones(metal), predictions, labels)
    del buffer
    objc.commit_and_wait(foreign)
    close(result.to_array(), expected(predictions, labels))


def test_a_dropped_buffer_of_another_frees_everything(
    metal: ml.Device, queue: ml.CommandQueue
) -> None:
    assert queue.objc_pointer is not None
    address = objc.command_buffer(queue.objc_pointer)
    buffer = ml.CommandBuffer.from_objc_pointer(address)
    result = gradient_kernel(metal).encode_batch(buffer, ones(metal), *arrays())
    del buffer
    objc.release(address)
    with pytest.raises(RuntimeError, match="discarded"):
        result.to_array()  # and the double counts what is left


def test_anothers_buffer_takes_no_arrays_and_no_temporary_images(
    metal: ml.Device, foreign: int
) -> None:
    predictions, labels = arrays()
    buffer = ml.CommandBuffer.from_objc_pointer(foreign)
    kernel = gradient_kernel(metal)
    with pytest.raises(TypeError, match="destination_gradients must be images"):
        kernel.encode_batch(
            buffer, ones(metal), predictions, labels, None, None, np.empty(SHAPE, "f4")
        )
    with pytest.raises(RuntimeError, match="temporary"):
        kernel.encode_batch(buffer, ones(metal), predictions, labels, allocator="temporary_image")


def test_images_of_another_are_read_written_and_encoded_with(
    metal: ml.Device, queue: ml.CommandQueue
) -> None:
    predictions, labels = arrays()
    batch = ml.MPSImageBatch.from_array(metal, predictions)
    adopted = [ml.MPSImage.from_objc_pointer(image.objc_pointer) for image in batch]
    assert [image.read_bytes() for image in adopted] == [p.tobytes() for p in predictions]
    adopted[0].write_bytes(predictions[1].tobytes())
    predictions[0] = predictions[1]
    kernel = gradient_kernel(metal)
    with queue.make_command_buffer() as buffer:
        result = kernel.encode_batch(buffer, ones(metal), adopted, labels)
    close(result.to_array(), expected(predictions, labels))


@pytest.fixture
def adopt() -> Iterator[Callable[[int], ml.MPSImageBatch]]:
    """Takes images over from another library, which lets go of them at the end."""
    pointers = []

    def from_pointer(pointer: int) -> ml.MPSImageBatch:
        pointers.append(pointer)
        return ml.MPSImageBatch.from_objc_pointer(pointer)

    yield from_pointer
    for pointer in pointers:
        objc.release(pointer)


def test_private_images_of_another_are_encoded_with_and_not_read(
    metal: ml.Device, queue: ml.CommandQueue, adopt: Callable[[int], ml.MPSImageBatch]
) -> None:
    predictions, labels = arrays()
    private = adopt(objc.private_images(metal.objc_pointer, SHAPE[1:], SHAPE[0]))
    kernel = gradient_kernel(metal)
    with queue.make_command_buffer() as buffer:
        kernel.encode_batch(buffer, ones(metal), predictions, labels, destination_gradients=private)
        result = kernel.encode_batch(buffer, private, predictions, labels)
    close(result.to_array(), expected(predictions, labels) ** 2)
    for read in (private.to_array, private[0].read_bytes):
        with pytest.raises(RuntimeError, match="private storage"):
            read()


def test_temporary_images_of_another_are_read_as_often_as_it_said(
    metal: ml.Device, foreign: int, adopt: Callable[[int], ml.MPSImageBatch]
) -> None:
    predictions, labels = arrays()
    temporary = adopt(objc.temporary_images(foreign, SHAPE[1:], SHAPE[0], reads=2))
    buffer = ml.CommandBuffer.from_objc_pointer(foreign)
    kernel = gradient_kernel(metal)
    kernel.encode_batch(buffer, ones(metal), predictions, labels, destination_gradients=temporary)
    results = [kernel.encode_batch(buffer, temporary, predictions, labels) for _ in range(2)]
    objc.commit_and_wait(foreign)
    for result in results:
        close(result.to_array(), expected(predictions, labels) ** 2)
    with pytest.raises(RuntimeError, match="temporary"):
        temporary.to_array()


def test_an_image_of_several_is_a_batch(
    metal: ml.Device, queue: ml.CommandQueue, adopt: Callable[[int], ml.MPSImageBatch]
) -> None:
    predictions, labels = arrays()
    several = objc.image_of_several(metal.objc_pointer, SHAPE[1:], SHAPE[0])
    with pytest.raises(ValueError, match=r"one image .*got 3 images"):
        ml.MPSImage.from_objc_pointer(several)
    batch = adopt(several)
    assert batch.shape == SHAPE
    for image, values in zip(batch, predictions, strict=True):
        image.write_bytes(values.tobytes())
    with queue.make_command_buffer() as buffer:
        result = gradient_kernel(metal).encode_batch(buffer, ones(metal), batch, labels)
    close(result.to_array(), expected(predictions, labels))


def test_a_buffer_that_was_continued_is_adopted_again(
    metal: ml.Device, queue: ml.CommandQueue
) -> None:
    predictions, labels = arrays()
    kernel = gradient_kernel(metal)
    foreign = objc.continuing_command_buffer(queue.objc_pointer)
    first = ml.CommandBuffer.from_objc_pointer(foreign)
    results = [kernel.encode_batch(first, ones(metal), predictions, labels)]
    objc.commit_and_continue(foreign)
    first.wait_until_completed()
    close(results[0].to_array(), expected(predictions, labels))
    with pytest.raises(RuntimeError, match=r"adopt it again|not be committed"):
        kernel.encode_batch(first, ones(metal), predictions, labels)
    second = ml.CommandBuffer.from_objc_pointer(foreign)
    results.append(kernel.encode_batch(second, results[0], predictions, labels))
    objc.commit_and_wait(foreign)
    second.wait_until_completed()
    close(results[1].to_array(), expected(predictions, labels) ** 2)
    objc.release(foreign)


# --- Archives of NSKeyedArchiver ---

KERNELS = (ml.MPSNNForwardLoss, ml.MPSNNLossGradient, ml.MPSNNInitialGradient)


def make(kind: type, device: ml.Device) -> ml.MPSKernel:
    if kind is ml.MPSNNInitialGradient:
        return kind(device)
    return kind(
        device,
        ml.MPSCNNLossDescriptor(
            "log", "mean", weight=0.5, epsilon=0.25, number_of_classes=7, label_smoothing=0.125
        ),
    )


@pytest.mark.parametrize("kind", KERNELS)
def test_a_keyed_archive_keeps_the_kernel(metal: ml.Device, kind: type) -> None:
    kernel = make(kind, metal)
    copy = kind.from_archived_data(kernel.archived_data(), metal)
    assert copy.debug_description == kernel.debug_description
    assert copy.objc_pointer != kernel.objc_pointer


@pytest.mark.parametrize("kind", KERNELS)
def test_what_is_no_keyed_archive_of_the_class_is_refused(metal: ml.Device, kind: type) -> None:
    data = make(kind, metal).archived_data()
    others = [make(other, metal).archived_data() for other in KERNELS if other is not kind]
    for wrong in (b"", b"no archive", data[: len(data) // 2], data[:-1], *others):
        with pytest.raises(ValueError, match="data must be an archive"):
            kind.from_archived_data(wrong, metal)


def test_a_failing_archiver_is_an_error(metal: ml.Device, faults: Callable[..., None]) -> None:
    kernel = gradient_kernel(metal)
    data = kernel.archived_data()
    faults("archive_is_nil")
    with pytest.raises(RuntimeError, match="archived"):
        kernel.archived_data()
    for fault in ("unarchive_is_nil", "unarchive_raises"):
        faults(fault)
        with pytest.raises(ValueError, match="data must be an archive"):
            ml.MPSNNLossGradient.from_archived_data(data, metal)


@pytest.mark.parametrize("kind", KERNELS)
def test_the_cpu_engine_has_no_keyed_archives(kind: type) -> None:
    kernel = make(kind, ml.cpu_device())
    with pytest.raises(RuntimeError, match="Metal"):
        kernel.archived_data()
    with pytest.raises(RuntimeError, match="Metal"):
        kind.from_archived_data(b"", ml.cpu_device())


# --- Faults ---


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("kernel_is_nil", "MPSNNLossGradient could not be made"),
        ("descriptor_is_nil", "MPSCNNLossDescriptor could not be made"),
        ("image_is_nil", "MPSImage could not be made"),
        ("queue_is_nil", "MTLCommandQueue could not be made"),
        ("command_buffer_is_nil", "MTLCommandBuffer could not be made"),
        ("encode_raises", "encoding failed"),
    ],
)
def test_what_metal_does_not_give_is_an_error(
    metal: ml.Device, faults: Callable[..., None], fault: str, words: str
) -> None:
    predictions, labels = arrays()

    def work() -> None:
        kernel = gradient_kernel(metal)
        with metal.make_command_queue().make_command_buffer() as buffer:
            kernel.encode_batch(buffer, ones(metal), predictions, labels)

    faults(fault)
    with pytest.raises(RuntimeError, match=words):
        work()


@pytest.mark.parametrize("code", [1, 2, 3, 4, 7, 8, 9, 11])
def test_a_failed_buffer_is_a_device_error_with_its_code(
    metal: ml.Device, queue: ml.CommandQueue, faults: Callable[..., None], code: int
) -> None:
    predictions, labels = arrays()
    faults("buffer_error", code)
    buffer = queue.make_command_buffer()
    result = gradient_kernel(metal).encode_batch(buffer, ones(metal), predictions, labels)
    buffer.commit()
    for read in (buffer.wait_until_completed, result.to_array):
        with pytest.raises(ml.DeviceError, match=f"MTLCommandBufferErrorDomain {code}:"):
            read()
    assert buffer.status == ml.CommandBufferStatus.ERROR
    assert f" {code}:" in str(buffer.error)
    with pytest.raises(ml.DeviceError, match=f"MTLCommandBufferErrorDomain {code}:"):
        ml.loss_gradient(predictions, labels, "huber", device=metal)


def test_a_failure_without_words_is_a_device_error(
    metal: ml.Device, queue: ml.CommandQueue, faults: Callable[..., None]
) -> None:
    faults("buffer_error_without_nserror")
    buffer = queue.make_command_buffer()
    buffer.commit()
    with pytest.raises(ml.DeviceError, match="did not complete"):
        buffer.wait_until_completed()


def test_states_need_no_object_of_metals(
    metal: ml.Device, queue: ml.CommandQueue, faults: Callable[..., None]
) -> None:
    faults("result_state_is_nil")
    predictions, labels = arrays()
    forward = ml.MPSNNForwardLoss(metal, ml.MPSCNNLossDescriptor("huber", delta=0.25))
    states = forward.result_state_batch(ml.MPSImageBatch.from_array(metal, predictions))
    with queue.make_command_buffer() as buffer:
        forward.encode_batch(buffer, predictions, labels, destination_states=states[:1])
        result = gradient_kernel(metal).encode_batch(
            buffer, ones(metal), predictions, labels, source_states=states[:1]
        )
    wanted = ml.loss_gradient(
        predictions, labels, "huber", reduction="none", delta=0.25, device=ml.cpu_device()
    )
    close(result.to_array(), wanted)


@pytest.mark.parametrize("fault", ["copy_forgets_properties", "archive_forgets_properties"])
def test_a_copy_has_every_property_whatever_metal_copies(
    metal: ml.Device, faults: Callable[..., None], fault: str
) -> None:
    faults(fault)
    kernel = make(ml.MPSNNLossGradient, metal)
    assert kernel.copy().debug_description == kernel.debug_description


# --- Queues ---


def test_64_buffers_that_nobody_commits_are_an_error_and_not_a_hang(
    metal: ml.Device, queue: ml.CommandQueue
) -> None:
    kernel = ml.MPSNNInitialGradient(metal)
    image = ml.MPSImageBatch.from_array(metal, np.ones((1, 1), "f4"))
    buffers = [queue.make_command_buffer() for _ in range(65)]
    for buffer in buffers[:64]:
        kernel.encode_batch(buffer, image)
    with pytest.raises(RuntimeError, match="64"):
        kernel.encode_batch(buffers[64], image)
    buffers[0].commit()
    kernel.encode_batch(buffers[64], image)


def test_a_full_queue_waits_without_the_gil(metal: ml.Device, queue: ml.CommandQueue) -> None:
    kernel = ml.MPSNNInitialGradient(metal)
    image = ml.MPSImageBatch.from_array(metal, np.ones((1, 1), "f4"))
    done: list[ml.CommandBuffer] = []
    for _ in range(200):
        buffer = queue.make_command_buffer()
        kernel.encode_batch(buffer, image)
        buffer.add_completed_handler(done.append)
        buffer.commit()
    buffer.wait_until_completed()
    for other in done:
        other.wait_until_completed()
    assert len(done) >= 1


def test_a_handler_may_commit_to_its_queue_and_wait(
    metal: ml.Device, queue: ml.CommandQueue
) -> None:
    results = []

    def handler(_: ml.CommandBuffer) -> None:
        with queue.make_command_buffer() as inner:
            batch = ml.MPSNNInitialGradient(metal).encode_batch(inner, np.zeros((1, 3), "f4"))
        results.append(batch.to_array())

    buffer = queue.make_command_buffer()
    buffer.add_completed_handler(handler)
    buffer.commit()
    buffer.wait_until_completed()
    assert results[0].tolist() == [[[[1, 1, 1]]]]


def test_a_kernel_changes_between_the_encodes_of_other_threads(
    metal: ml.Device, faults: Callable[..., None]
) -> None:
    faults("encode_pause", 300)
    kernel = gradient_kernel(metal, "mean_squared_error")
    predictions, labels = arrays()

    def work() -> None:
        queue = metal.make_command_queue()
        for _ in range(10):
            with queue.make_command_buffer() as buffer:
                kernel.encode_batch(buffer, ones(metal), predictions, labels)
            kernel.weight = kernel.weight + 1

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.skipif(not METAL, reason="there is no Metal device")
def test_work_in_flight_at_exit_ends_before_the_interpreter() -> None:
    program = """
import mpsnn_loss as ml, numpy as np
device = ml.devices()[0]
buffer = device.make_command_queue().make_command_buffer()
ml.MPSNNInitialGradient(device).encode_batch(buffer, np.ones((1, 1), "f4"))
buffer.add_completed_handler(lambda _: print("completed", flush=True))
buffer.commit()
"""
    run = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"SOFTMETAL_FAULT": "completion_late=300"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (run.returncode, run.stdout) == (0, "completed\n"), run.stderr


# --- Limits ---


@pytest.mark.parametrize("shape", [(1, 1, 1, 8189), (1, 1, 16385, 1), (1, 16385, 1, 1)])
def test_images_over_the_limits_are_refused_before_metal_sees_them(
    metal: ml.Device, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="array must have a size of the device"):
        ml.MPSImageBatch.from_array(metal, np.zeros(shape, "f4"))
    descriptor = ml.MPSImageDescriptor(width=shape[2], height=shape[1], feature_channels=shape[3])
    with pytest.raises(ValueError, match="descriptor must have a size of the device"):
        ml.MPSImage(metal, descriptor)


def test_losses_that_couple_channels_have_a_limit_and_the_others_none(metal: ml.Device) -> None:
    y = np.zeros((2, 8189), "f4")
    with pytest.raises(ValueError, match="8188 channels"):
        ml.loss(y, y, "softmax_cross_entropy", device=metal)
    assert ml.loss(y + 2, y, "mean_squared_error", device=metal) == 4
