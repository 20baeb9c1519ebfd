"""Objects without contents, garbage, exits and forks amid work: never a crash, never a hang."""

from __future__ import annotations

import gc
import inspect
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable
from typing import Any

import mpsnn_loss as ml
import numpy as np
import pytest

LONG = 60.0
CLASSES = [
    value
    for value in vars(ml).values()
    if inspect.isclass(value) and type(value).__name__ == "pybind11_type"
]


def in_new_process(code: str, **environment: str) -> str:
    """What the code prints in an interpreter of its own, which must end well."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=LONG,
        env=os.environ | environment,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def uses(empty: Any) -> dict[str, Callable[[], Any]]:
    """Every way into an object, by name."""
    device, array = ml.cpu_device(), np.ones((1, 2), np.float32)
    buffer = device.make_command_queue().make_command_buffer()
    kernel = ml.MPSNNLossGradient(device, ml.MPSCNNLossDescriptor("huber"))
    forward = ml.MPSNNForwardLoss(device, ml.MPSCNNLossDescriptor("huber"))
    found: dict[str, Callable[[], Any]] = {
        "repr": lambda: repr(empty),
        "str": lambda: str(empty),
        "call": lambda: empty(array, array),
        "memoryview": lambda: memoryview(empty),
        "iteration": lambda: list(empty),
        "len": lambda: len(empty),
        "index": lambda: empty[0],
        "contains": lambda: kernel in empty,
        "equality": lambda: empty == empty,
        "enter": lambda: empty.__enter__(),
        "image": lambda: ml.MPSImage(device, empty),
        "kernel of it": lambda: ml.MPSNNLossGradient(device, empty),
        "kernel on it": lambda: ml.MPSNNLossGradient(empty, ml.MPSCNNLossDescriptor("huber")),
        "supports": lambda: device.supports(empty),
        "buffer": lambda: kernel.encode_batch(empty, array, array, array),
        "images": lambda: kernel.encode_batch(buffer, array, [empty], array),
        "batch": lambda: kernel.encode_batch(buffer, array, empty, array),
        "states": lambda: kernel.encode_batch(buffer, array, array, array, None, [empty]),
        "result states": lambda: forward.encode_batch(
            buffer, array, array, destination_states=empty
        ),
        "predictions": lambda: kernel(empty, array),
        "operand": lambda: ml.loss(array, empty, "huber"),
        "device of a call": lambda: ml.loss(array, array, "huber", device=empty),
        "from_bytes": lambda: type(kernel).from_bytes(kernel.to_bytes(), empty),
    }
    for name in dir(type(empty)):
        if name.startswith("__") and name not in ("__array__", "__reduce__", "__copy__"):
            continue
        member = inspect.getattr_static(type(empty), name)
        if isinstance(member, property):
            found[name] = lambda name=name: getattr(empty, name)
            if member.fset is not None:
                found[f"set {name}"] = lambda name=name: setattr(empty, name, 1)
        else:
            found[name] = lambda name=name: getattr(empty, name)()
    return found


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_an_object_that_was_never_initialised_is_a_type_error_however_it_is_used(cls: type) -> None:
    assert len(CLASSES) >= 14
    try:
        empty = cls.__new__(cls)
    except TypeError:
        return  # classes without a constructor
    harmless = {"equality"}  # by identity
    for name, use in uses(empty).items():
        try:
            use()
        except (TypeError, BufferError, AttributeError):
            continue
        assert name in harmless, f"{name} worked"
    copied = cls.__new__(cls)
    del empty, copied
    gc.collect()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickling_works_or_is_a_type_error_with_every_protocol(protocol: int) -> None:
    for value in (ml.MPSCNNLossDescriptor("huber"), ml.cpu_device()):
        try:
            data = pickle.dumps(value, protocol)
        except TypeError:
            assert protocol < 2 or value is ml.cpu_device()
        else:
            assert pickle.loads(data) == value
    with pytest.raises(TypeError):
        ml.Device.__mro__[1]()


def test_a_subclass_still_needs_the_constructor() -> None:
    class Mine(ml.MPSNNLossGradient):
        def __init__(self) -> None:
            pass

    with pytest.raises(TypeError):
        Mine()
    with pytest.raises(TypeError):
        repr(Mine.__new__(Mine))
    with pytest.raises(TypeError):
        object.__new__(ml.CommandBuffer)


@pytest.mark.parametrize("fate", ["open", "enqueued", "discarded", "committed"])
def test_a_handler_that_closes_over_its_buffer_is_collected(device: ml.Device, fate: str) -> None:
    class Witness:
        pass

    queue = device.make_command_queue()
    buffer, witness, called = queue.make_command_buffer(), Witness(), []

    def handler(_: Any, buffer: Any = buffer, witness: Any = witness) -> None:
        called.append(buffer.status)

    buffer.add_completed_handler(handler)
    buffer.add_completed_handler(handler)
    if fate == "enqueued":
        buffer.enqueue()
    if fate == "discarded":
        with pytest.raises(KeyError), buffer:
            raise KeyError
    gc.collect()
    if fate == "committed":
        buffer.commit()
        buffer.wait_until_completed(timeout=LONG)
    watched = weakref.ref(witness)
    del buffer, handler, witness
    gc.collect()
    assert watched() is None
    assert len(called) == (2 if fate == "committed" else 0)
    later = queue.make_command_buffer()  # an enqueued buffer gave up its place
    later.commit()
    later.wait_until_completed(timeout=LONG)


def test_a_wait_with_a_timeout_ends_while_others_work_is_ready(device: ml.Device) -> None:
    """The waiting thread must not be caught in work or in a handler of another buffer."""
    queue, release = device.make_command_queue(), threading.Event()
    gate, slow, last = (queue.make_command_buffer() for _ in range(3))
    gate.enqueue()
    slow.add_completed_handler(lambda _: release.wait(LONG))
    slow.commit()
    last.add_completed_handler(lambda _: release.wait(LONG))
    last.commit()
    opening = threading.Thread(target=gate.commit, daemon=True)
    opening.start()
    with pytest.raises(TimeoutError):
        last.wait_until_completed(timeout=0.2)
    release.set()
    last.wait_until_completed(timeout=LONG)
    opening.join(LONG)


def test_discarding_does_not_run_others_work_on_the_discarding_thread(device: ml.Device) -> None:
    queue, threads = device.make_command_queue(), []
    gate, waiting = queue.make_command_buffer(), queue.make_command_buffer()
    gate.enqueue()
    waiting.add_completed_handler(lambda _: threads.append(threading.get_ident()))
    waiting.commit()
    del gate
    gc.collect()
    waiting.wait_until_completed(timeout=LONG)
    assert threads
    assert threads[0] != threading.get_ident()


def test_a_large_commit_returns_before_the_work_is_done_and_python_goes_on() -> None:
    device = ml.cpu_device()
    queue, order = device.make_command_queue(), []
    kernel = ml.MPSNNLossGradient(device, ml.MPSCNNLossDescriptor("sigmoid_cross_entropy"))
    y = np.zeros((64, 1 << 16), np.float32)
    g = np.ones((64, 1, 1, 1), np.float32)
    buffer = queue.make_command_buffer()
    result = kernel.encode_batch(buffer, g, y, y)
    buffer.add_completed_handler(lambda _: order.append("handler"))
    buffer.commit()
    order.append("commit")  # the handler takes the lock of the interpreter, which this thread has
    small = queue.make_command_buffer()
    small.add_completed_handler(lambda _: order.append("small"))
    small.commit()
    small.wait_until_completed(timeout=LONG)
    buffer.wait_until_completed(timeout=LONG)
    assert sorted(order) == ["commit", "handler", "small"]
    assert (result.to_array() == 0.5).all()


def test_the_process_ends_well_while_daemon_threads_are_inside_calls() -> None:
    """Many times over, as the moment decides: the lock is taken while the interpreter ends."""
    code = """
        import threading, time
        import numpy as np, mpsnn_loss as ml
        y = np.ones((64, 4096), np.float32)
        device = ml.cpu_device()
        kernel = ml.MPSNNLossGradient(device, ml.MPSCNNLossDescriptor("sigmoid_cross_entropy"))
        def call():
            while True:
                ml.loss_gradient(y, y, "softmax_cross_entropy", out=np.empty_like(y))
        def encode():
            queue = device.make_command_queue()
            while True:
                with queue.make_command_buffer() as buffer:
                    buffer.add_completed_handler(lambda _: None)
                    kernel.encode_batch(buffer, np.ones((64, 1, 1, 1), np.float32), y, y)
        for target in (call, encode, call, encode):
            threading.Thread(target=target, daemon=True).start()
        time.sleep({seconds})
    """
    for i in range(4):
        in_new_process(code.replace("{seconds}", str(0.02 + 0.013 * i)))


def test_the_process_ends_well_while_a_committed_buffer_is_in_flight() -> None:
    in_new_process("""
        import numpy as np, mpsnn_loss as ml
        device = ml.cpu_device()
        kernel = ml.MPSNNLossGradient(device, ml.MPSCNNLossDescriptor("sigmoid_cross_entropy"))
        y = np.zeros((64, 1 << 16), np.float32)
        buffer = device.make_command_queue().make_command_buffer()
        buffer.add_completed_handler(lambda _: None)
        kernel.encode_batch(buffer, np.ones((64, 1, 1, 1), np.float32), y, y)
        buffer.commit()
    """)


CHAIN = """
    import itertools, os, sys, threading, time, warnings
    import mpsnn_loss as ml
    queue, rounds = ml.cpu_device().make_command_queue(), itertools.count(1)
    def commit_next(_, last):
        if next(rounds) < last:
            buffer = queue.make_command_buffer()
            buffer.add_completed_handler(lambda b: commit_next(b, last))
            buffer.commit()
        else:
            print("last", flush=True)
"""


def test_handlers_that_commit_again_run_to_their_end_before_the_process_ends() -> None:
    assert in_new_process(CHAIN + "    commit_next(None, 20000)\n") == "last\n"


def test_a_chain_of_handlers_without_an_end_is_left_with_a_warning() -> None:
    code = textwrap.dedent(CHAIN + "    commit_next(None, float('inf'))\n")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=LONG, check=False
    )
    assert done.returncode == 0
    assert "RuntimeWarning: the process ends without" in done.stderr


def test_an_exception_of_any_kind_in_a_handler_is_unraisable(
    device: ml.Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = [KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError]
    reported: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: reported.append(report.exc_type))

    def fail(_: ml.CommandBuffer, kind: type[BaseException]) -> None:
        raise kind

    with device.make_command_queue().make_command_buffer() as buffer:
        for kind in kinds:
            buffer.add_completed_handler(lambda b, kind=kind: fail(b, kind))
    assert reported == kinds


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
def test_after_a_fork_while_handlers_run_the_child_refuses_to_wait_and_ends() -> None:
    printed = in_new_process(
        CHAIN
        + """
    warnings.simplefilter("ignore")  # Python warns of threads and fork
    inside, release = threading.Event(), threading.Event()
    def hold(_):
        inside.set()
        release.wait(60)
    handled = queue.make_command_buffer()
    handled.add_completed_handler(hold)
    gate = queue.make_command_buffer()
    gate.enqueue()
    handled.commit()
    del gate  # so that another thread runs the handler
    inside.wait(60)
    child = os.fork()
    if child == 0:
        for timeout in (None, 0, 1):
            try:
                handled.wait_until_completed(timeout)
            except RuntimeError as error:
                print("fork" in str(error), flush=True)
        with queue.make_command_buffer() as buffer:
            buffer.add_completed_handler(lambda _: print("handled", flush=True))
        commit_next(None, 1000)
        sys.exit()  # which does not wait for the parent's handlers
    print(os.waitpid(child, 0)[1])
    release.set()
    handled.wait_until_completed()
    """
    )
    assert printed.split() == ["True"] * 3 + ["handled", "last", "0"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
def test_after_a_fork_a_busy_queue_refuses_and_an_idle_one_works() -> None:
    printed = in_new_process("""
        import os, threading, warnings
        import numpy as np, mpsnn_loss as ml
        warnings.simplefilter("ignore")  # Python warns of threads and fork
        device = ml.cpu_device()
        kernel = ml.MPSNNLossGradient(device, ml.MPSCNNLossDescriptor("sigmoid_cross_entropy"))
        y = np.zeros((256, 1 << 16), np.float32)
        def encode(queue, rows):
            buffer = queue.make_command_buffer()
            g = np.ones((rows, 1, 1, 1), np.float32)
            return buffer, kernel.encode_batch(buffer, g, y[:rows], y[:rows])
        busy, idle = device.make_command_queue(), device.make_command_queue()
        done, _ = encode(busy, 1)
        done.commit(); done.wait_until_completed()
        prepared, _ = encode(busy, 1)
        running, result = encode(busy, 256)
        for _ in range(8):
            kernel.encode_batch(running, np.ones((256, 1, 1, 1), np.float32), y, y)
        small, _ = encode(idle, 1)
        small.commit(); small.wait_until_completed()
        running.commit()
        child = os.fork()
        if child == 0:
            def refused(call):
                try:
                    call()
                except RuntimeError as error:
                    return "fork" in str(error)
            checks = [refused(lambda: running.wait_until_completed()),
                      refused(lambda: running.wait_until_completed(timeout=1)),
                      refused(lambda: encode(busy, 1)), refused(prepared.commit),
                      refused(lambda: prepared.enqueue())]
            done.wait_until_completed()
            for rows in (1, 64):
                buffer, fresh = encode(idle, rows)
                buffer.commit(); buffer.wait_until_completed()
                checks.append(bool((fresh.to_array() == 0.5).all()))
            del prepared
            print(checks, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        running.wait_until_completed()
        print((result.to_array() == 0.5).all())
    """)
    assert printed.split("\n")[:2] == [str([True] * 7), "True"]
