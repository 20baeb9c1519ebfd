"""The Metal backend where a real machine differs from the usual one: devices that are hard to find,
defaults that no header states, waits that never end, forks, and too little memory."""

from __future__ import annotations

import textwrap
import threading
import time
from collections.abc import Callable, Iterator

import mpsnn_loss as ml
import numpy as np
import objc
import pytest
from operands import in_a_fresh_interpreter
from softmetal import Softmetal
from tested_devices import DEVICES

pytestmark = pytest.mark.skipif(
    all(device.kind != "metal" for device in DEVICES), reason="there is no Metal device"
)

SHAPE = (3, 2, 4, 5)
# A shell starts what runs in its background with SIGINT ignored.
SCENE = """
import ctypes, os, pathlib, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
double = ctypes.CDLL(str(pathlib.Path(ml.__file__).with_name("libsoftmetal.so")))
y, t = np.ones((2, 3), "f4"), np.zeros((2, 3), "f4")
descriptor = ml.MPSCNNLossDescriptor("huber")
"""


def on_the_double(program: str, **environment: str) -> str:
    return in_a_fresh_interpreter(SCENE + textwrap.dedent(program), **environment)


@pytest.fixture
def metal() -> ml.Device:
    return next(device for device in DEVICES if device.kind == "metal")


@pytest.fixture
def faults(double: Softmetal) -> Iterator[Callable[..., None]]:
    yield double.set_fault
    double.reset_faults()


def arrays(shape: tuple[int, ...] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=shape).astype("f4"), rng.random(shape).astype("f4")


def gradient_kernel(device: ml.Device) -> ml.MPSNNLossGradient:
    return ml.MPSNNLossGradient(device, ml.MPSCNNLossDescriptor("huber"))


def expected(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    device = ml.cpu_device()
    return ml.loss_gradient(predictions, labels, "huber", reduction="none", device=device)


# --- Devices are found ---


@pytest.mark.parametrize("fault", ["default_device_is_nil", "device_list_is_empty"])
@pytest.mark.parametrize("devices", ["1", "3"])
def test_either_of_metals_two_answers_is_enough(
    double: Softmetal, fault: str, devices: str
) -> None:
    program = "print([device.kind for device in ml.devices()])"
    known = 1 if fault == "device_list_is_empty" else int(devices)
    found = on_the_double(program, SOFTMETAL_FAULT=fault, SOFTMETAL_DEVICES=devices)
    assert found == str(["metal"] * known + ["cpu"])


def test_the_default_device_comes_first_and_once(double: Softmetal) -> None:
    found = on_the_double("print(len(ml.devices()), ml.devices()[0].name)", SOFTMETAL_DEVICES="3")
    assert found == "4 Softmetal managed"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("no_device", "MTLCreateSystemDefaultDevice returned nil, MTLCopyAllDevices 0"),
        ("probe_raises", "NSGenericException: probe_raises"),
        ("device_unsupported", "MPS does not support Softmetal managed"),
        ("device_unsupported", "MTLCreateSystemDefaultDevice returned one, MTLCopyAllDevices 1"),
    ],
)
def test_without_a_device_the_reason_says_what_metal_answered(
    double: Softmetal, fault: str, words: str
) -> None:
    program = """
    try:
        ml.default_device()
    except ValueError as error:
        cpu = ml.cpu_device()
        print(error, [device.kind for device in ml.devices()], ml.loss(y, t, "huber", device=cpu))
    """
    said = on_the_double(program, SOFTMETAL_FAULT=fault, MPSNN_LOSS_DEVICE="metal")
    assert words in said
    assert said.endswith("['cpu'] 0.5")


def test_an_answer_without_devices_is_asked_again(double: Softmetal) -> None:
    program = """
    before = len(ml.devices())
    double.softmetal_clear_faults()
    print(before, len(ml.devices()))
    """
    assert on_the_double(program, SOFTMETAL_FAULT="no_device") == "1 2"


# --- Who does not ask for Metal does not touch it ---


@pytest.mark.parametrize("chosen", ["", "cpu"])
def test_whoever_stays_on_the_cpu_engine_never_looks_for_metal(
    double: Softmetal, chosen: str
) -> None:
    program = """
    import copy, pickle
    cpu = ml.cpu_device()
    ml.loss(y, t, "huber"), ml.loss_gradient(y, t, "huber", device=cpu)
    ml.loss_and_gradient(np.ones((512, 512)), np.ones((512, 512)), "huber")
    if os.environ["MPSNN_LOSS_DEVICE"] == "cpu":
        ml.default_device()
    cpu.supports(descriptor), cpu.supports("float64"), repr(cpu), ml.build_info()
    for kind in (ml.MPSNNForwardLoss, ml.MPSNNLossGradient, ml.MPSNNInitialGradient):
        kernel = kind(cpu) if kind is ml.MPSNNInitialGradient else kind(cpu, descriptor)
        kind.from_bytes(kernel.to_bytes(), cpu), kernel.copy(cpu), copy.deepcopy(kernel)
        pickle.loads(pickle.dumps(kernel))
    batch = ml.MPSImageBatch.from_array(cpu, np.ones((2, 1, 1, 3), "f4"))
    kernel = ml.MPSNNLossGradient(cpu, descriptor)
    kernel(y, t), cpu.make_command_queue("queue")
    with cpu.make_command_queue().make_command_buffer() as buffer:
        kernel.encode_batch(buffer, np.ones((2, 1, 1, 3), "f4"), batch, batch)
    print(double.softmetal_probes())
    ml.devices()
    print(double.softmetal_probes())
    """
    assert on_the_double(program, MPSNN_LOSS_DEVICE=chosen).split() == ["0", "2"]


# --- Encode does not refuse what nobody set ---


def test_other_defaults_of_the_platform_stop_no_encode(double: Softmetal) -> None:
    program = """
    metal = ml.devices()[0]
    kernel = ml.MPSNNLossGradient(metal, descriptor)
    forward = ml.MPSNNForwardLoss(metal, descriptor)
    print(kernel.primary_dilation_rate_x, kernel.is_backwards, forward.padding.value)
    copies = [
        kernel, kernel.copy(), type(kernel).from_bytes(kernel.to_bytes(), metal),
        type(kernel).from_archived_data(kernel.archived_data(), metal),
        ml.MPSNNLossGradient.from_bytes(
            ml.MPSNNLossGradient(ml.cpu_device(), descriptor).to_bytes(), metal
        ),
    ]
    for each in copies:
        print(each(y, t).tolist() == copies[0](y, t).tolist(), end=" ")
    with metal.make_command_queue().make_command_buffer() as buffer:
        for allocator in (None, "image"):
            forward.encode_batch(
                buffer, y.reshape(2, 1, 1, 3), t.reshape(2, 1, 1, 3), allocator=allocator
            )
    before = kernel.padding
    kernel.padding = ml.MPSNNPaddingMethod.SIZE_FULL
    try:
        kernel(y, t)
    except ValueError as error:
        print("padding must be" in str(error), end=" ")
    kernel.padding = before
    print(kernel(y, t).shape)
    """
    said = on_the_double(program, SOFTMETAL_FAULT="other_defaults").splitlines()
    assert said == ["0 True 0", "True True True True True True (2, 3)"]


# --- Every wait can end ---


@pytest.mark.parametrize("call", ["ml.loss(y, t, 'huber', device=metal)", "kernel(y, t)"])
def test_a_wait_for_a_gpu_that_never_ends_lets_an_interrupt_through(
    double: Softmetal, call: str
) -> None:
    program = f"""
    import threading
    metal = ml.devices()[0]
    kernel = ml.MPSNNLossGradient(metal, descriptor)
    double.softmetal_set_fault(b"never_completes", ctypes.c_double(1))
    threading.Timer(0.5, signal.raise_signal, [signal.SIGINT]).start()
    try:
        {call}
    except KeyboardInterrupt:
        print("interrupted")
    double.softmetal_clear_faults()
    """
    assert on_the_double(program) == "interrupted"


def test_an_interrupted_call_writes_nothing_later(double: Softmetal) -> None:
    program = """
    import threading
    metal = ml.devices()[0]
    kernel, out = ml.MPSNNLossGradient(metal, descriptor), np.full((2, 3), 7, "f4")
    for call in (
        lambda: kernel(y, t, out=out),
        lambda: ml.loss_gradient(y, t, "huber", out=out, device=metal),
    ):
        double.softmetal_set_fault(b"never_completes", ctypes.c_double(1))
        threading.Timer(0.3, signal.raise_signal, [signal.SIGINT]).start()
        try:
            call()
        except KeyboardInterrupt:
            pass
        double.softmetal_clear_faults()
        with metal.make_command_queue().make_command_buffer():
            pass
        print(call().max() < 7, end=" ")  # the device works on
        out[:] = 7
    import time
    time.sleep(0.5)
    print(out.min())
    """
    assert on_the_double(program) == "True True 7.0"


def test_the_end_of_the_process_waits_for_a_gpu_that_never_ends_no_longer_than_it_says(
    double: Softmetal,
) -> None:
    program = """
    import sys
    metal = ml.devices()[0]
    sys.stderr = sys.stdout
    double.softmetal_set_fault(b"never_completes", ctypes.c_double(1))
    buffer = metal.make_command_queue().make_command_buffer()
    ml.MPSNNInitialGradient(metal).encode_batch(buffer, np.ones((1, 1, 1, 3), "f4"))
    buffer.commit()
    """
    assert "RuntimeWarning" in on_the_double(program)


def test_a_child_of_a_process_that_used_metal_is_told_so(double: Softmetal) -> None:
    program = """
    metal = ml.devices()[0]
    kernel, queue = ml.MPSNNLossGradient(metal, descriptor), metal.make_command_queue()
    image = ml.MPSImageBatch.from_array(metal, np.ones((2, 1, 1, 3), "f4"))
    archive = kernel.archived_data()
    pending = queue.make_command_buffer()
    kernel.encode_batch(pending, image, image, image)
    double.softmetal_set_fault(b"completion_late", ctypes.c_double(300))
    running = queue.make_command_buffer()
    ml.MPSNNInitialGradient(metal).encode_batch(running, image)
    running.commit()

    def in_child():
        uses = {
            "device": lambda: metal.make_command_queue(),
            "function": lambda: ml.loss(y, t, "huber", device=metal),
            "kernel": lambda: kernel(y, t),
            "new kernel": lambda: ml.MPSNNLossGradient(metal, descriptor),
            "property": lambda: kernel.weight,
            "set property": lambda: setattr(kernel, "weight", 2.0),
            "copy": lambda: kernel.copy(),
            "archive": lambda: ml.MPSNNLossGradient.from_archived_data(archive, metal),
            "images": lambda: ml.MPSImageBatch.from_array(metal, np.ones((2, 1, 1, 3), "f4")),
            "read": lambda: image.to_array(),
            "encode": lambda: kernel.encode_batch(pending, image, image, image),
            "commit": lambda: pending.commit(),
            "wait": lambda: running.wait_until_completed(timeout=60),
            "new buffer": lambda: kernel.encode_batch(
                queue.make_command_buffer(), image, image, image
            ),
            "foreign": lambda: ml.Device.from_objc_pointer(metal.objc_pointer),
        }
        wrong = []
        for name, use in uses.items():
            try:
                use()
                wrong.append(name)
            except RuntimeError as error:
                if "fork" not in str(error):
                    wrong.append(f"{name}: {error}")
        assert float(ml.loss(y, t, "huber")) == 0.5
        return wrong

    import sys
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        global_names = globals()
        wrong = in_child()
        print(wrong, flush=True)
        for name in ("kernel", "queue", "image", "pending", "running", "metal"):
            global_names.pop(name)
        sys.exit(3)  # destructors and handlers of exit run
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status))
    del pending
    running.wait_until_completed()
    """
    assert on_the_double(program).split("\n") == ["[]", "3"]


def test_a_child_of_a_process_that_never_looked_may_use_metal(double: Softmetal) -> None:
    program = """
    ml.loss(y, t, "huber")
    child = os.fork()
    if child == 0:
        print(ml.devices()[0].kind, ml.loss(y, t, "huber", device=ml.devices()[0]), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    """
    assert on_the_double(program) == "metal 0.5"


def test_everyone_who_wraps_a_queue_shares_its_places(double: Softmetal, metal: ml.Device) -> None:
    queue = metal.make_command_queue()
    wrappers = [queue, ml.CommandQueue.from_objc_pointer(queue.objc_pointer)]
    image = ml.MPSImageBatch.from_array(metal, np.ones(SHAPE, "f4"))
    kernel = ml.MPSNNInitialGradient(metal)
    buffers = []
    for i in range(64):
        buffers.append(wrappers[i % 2].make_command_buffer())
        kernel.encode_batch(buffers[-1], image)
    for wrapper in wrappers:
        with pytest.raises(RuntimeError, match="fewer than 64 command buffers"):
            kernel.encode_batch(wrapper.make_command_buffer(), image)
    del buffers[-1]
    kernel.encode_batch(wrappers[1].make_command_buffer(), image)


def test_a_foreign_buffer_that_goes_on_during_an_encode_is_waited_for_to_its_end(
    double: Softmetal, metal: ml.Device, faults: Callable[..., None]
) -> None:
    predictions, labels = arrays()
    queue = metal.make_command_queue()
    foreign = objc.continuing_command_buffer(queue.objc_pointer)
    buffer = ml.CommandBuffer.from_objc_pointer(foreign)
    ended = threading.Event()
    buffer.add_completed_handler(lambda _: ended.set())
    kernel = gradient_kernel(metal)
    ones = ml.MPSImageBatch.from_array(metal, np.ones(SHAPE, "f4"))
    faults("continue_during_encode")
    result = kernel.encode_batch(buffer, ones, predictions, labels)
    double.reset_faults()
    time.sleep(0.1)  # the first root has ended long since
    assert not ended.is_set()
    assert buffer.status < ml.CommandBufferStatus.COMMITTED
    later = kernel.encode_batch(buffer, ones, predictions, labels)
    buffer.commit()
    buffer.wait_until_completed(timeout=60)
    assert ended.wait(60)
    for images in (result, later):
        np.testing.assert_allclose(
            images.to_array(), expected(predictions, labels), rtol=1e-6, atol=1e-7
        )
    objc.release(foreign)


def test_a_foreign_buffer_that_goes_on_during_an_encode_may_be_dropped(
    double: Softmetal, metal: ml.Device, faults: Callable[..., None]
) -> None:
    queue = metal.make_command_queue()
    foreign = objc.continuing_command_buffer(queue.objc_pointer)
    buffer = ml.CommandBuffer.from_objc_pointer(foreign)
    faults("continue_during_encode")
    ml.MPSNNInitialGradient(metal).encode_batch(buffer, np.ones(SHAPE, "f4"))
    del buffer
    objc.release(foreign)  # what is left over is found after the test


def test_the_failure_of_a_root_that_was_left_behind_is_the_buffers(
    double: Softmetal, metal: ml.Device, faults: Callable[..., None]
) -> None:
    queue = metal.make_command_queue()
    foreign = objc.continuing_command_buffer(queue.objc_pointer)
    buffer = ml.CommandBuffer.from_objc_pointer(foreign)
    faults("continue_during_encode")
    faults("buffer_error", 2)
    ml.MPSNNInitialGradient(metal).encode_batch(buffer, np.ones(SHAPE, "f4"))
    time.sleep(0.2)
    double.reset_faults()
    buffer.commit()
    with pytest.raises(ml.DeviceError, match="MTLCommandBufferErrorDomain 2:"):
        buffer.wait_until_completed(timeout=60)
    objc.release(foreign)


# --- Memory ---


@pytest.mark.parametrize("loss_type", ["huber", "softmax_cross_entropy", "cosine_distance"])
@pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
@pytest.mark.parametrize("across", [True, False])
def test_large_arrays_go_through_in_parts_that_fit(
    double: Softmetal, metal: ml.Device, loss_type: str, reduction: str, across: bool
) -> None:
    if loss_type == "cosine_distance" and reduction != "sum":
        pytest.skip("the cosine distance is summed")
    predictions, labels = arrays((40, 30, 6))
    weights = arrays((40, 30, 1))[1]
    options = {"reduction": reduction, "reduce_across_batch": across, "weights": weights}
    wanted = ml.loss_and_gradient(predictions, labels, loss_type, device=ml.cpu_device(), **options)
    share = 1 << 16
    double.library.softmetal_set_working_set(4 * share)
    try:
        double.reset_counters()
        before = double.counter("most_texel_bytes")
        found = ml.loss_and_gradient(predictions, labels, loss_type, device=metal, **options)
        # The images of the buffer that has just ended may still be there.
        assert double.counter("most_texel_bytes") - before <= 2 * share
        assert double.counter("commits") > 1
    finally:
        double.library.softmetal_set_working_set(1 << 32)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def test_a_working_set_of_0_is_one_that_is_not_known(double: Softmetal, metal: ml.Device) -> None:
    double.library.softmetal_set_working_set(0)
    try:
        double.reset_counters()
        ml.loss(*arrays(), "huber", device=metal)
        assert double.counter("commits") == 1
    finally:
        double.library.softmetal_set_working_set(1 << 32)


@pytest.mark.parametrize("allocator", [None, "image"])
def test_a_destination_without_memory_is_a_memory_error_before_metal_sees_it(
    double: Softmetal, metal: ml.Device, allocator: str | None
) -> None:
    kernel = ml.MPSNNInitialGradient(metal)
    image = ml.MPSImageBatch.from_array(metal, np.ones(SHAPE, "f4"))
    buffer = metal.make_command_queue().make_command_buffer()
    double.set_fault("texture_is_nil")
    try:
        with pytest.raises(MemoryError, match=r"image 0 of \(3, 2, 4, 5\) float32, 160 bytes each"):
            kernel.encode_batch(buffer, image, allocator=allocator)
        for call in (
            lambda: ml.loss_gradient(*arrays(), "huber", device=metal),
            lambda: gradient_kernel(metal)(*arrays()),
            lambda: ml.MPSImageBatch.from_array(metal, np.ones(SHAPE, "f4")),
        ):
            with pytest.raises(MemoryError, match="no memory for image 0"):
                call()
    finally:
        double.reset_faults()
    kernel.encode_batch(buffer, image, allocator=allocator)
    buffer.commit()
    buffer.wait_until_completed()


@pytest.mark.parametrize("each_use", [True, False])
def test_a_temporary_image_may_be_several_operands_of_an_encode(
    double: Softmetal, metal: ml.Device, faults: Callable[..., None], each_use: bool
) -> None:
    if each_use:
        faults("lower_read_count_each_use")
    kernel = gradient_kernel(metal)
    with metal.make_command_queue().make_command_buffer() as buffer:
        ones = ml.MPSNNInitialGradient(metal).encode_batch(
            buffer, np.ones(SHAPE, "f4"), allocator="temporary_image"
        )
        results = [
            kernel.encode_batch(buffer, ones, ones, ones, ones),
            kernel.encode_batch(buffer, ones, ones, np.zeros(SHAPE, "f4"), ones),
        ]
    assert np.all(results[0].to_array() == 0)
    np.testing.assert_array_equal(
        results[1].to_array(), expected(np.ones(SHAPE, "f4"), np.zeros(SHAPE, "f4"))
    )


def test_a_foreign_temporary_image_without_reads_left_is_refused(
    double: Softmetal, metal: ml.Device
) -> None:
    queue = metal.make_command_queue()
    foreign = objc.command_buffer(queue.objc_pointer)
    buffer = ml.CommandBuffer.from_objc_pointer(foreign)
    pointer = objc.temporary_images(foreign, SHAPE[1:], SHAPE[0], reads=1)
    images = ml.MPSImageBatch.from_objc_pointer(pointer)
    ones = np.ones(SHAPE, "f4")
    kernel = ml.MPSNNInitialGradient(metal)
    kernel_of_two = gradient_kernel(metal)
    kernel_of_two.encode_batch(buffer, ones, ones, ones, None, None, images)
    kernel.encode_batch(buffer, images)
    with pytest.raises(
        RuntimeError, match="source_images must be temporary images that have reads"
    ):
        kernel.encode_batch(buffer, images)
    del images
    objc.release(pointer)
    objc.commit_and_wait(foreign)
    objc.release(foreign)
