"""The life of command buffers: status, order, handlers, waiting, leaving a with block."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mpsnn_loss as ml
import numpy as np
import pytest

Status = ml.CommandBufferStatus
LONG = 60.0  # seconds: the end of a test that hangs, not a measure of anything


@pytest.fixture
def queue(device: ml.Device) -> ml.CommandQueue:
    return device.make_command_queue(label="queue under test")


@pytest.fixture
def buffer(queue: ml.CommandQueue) -> ml.CommandBuffer:
    return queue.make_command_buffer(label="buffer under test")


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


def run(buffer: ml.CommandBuffer) -> None:
    buffer.commit()
    buffer.wait_until_completed(timeout=LONG)


def ones(buffer: ml.CommandBuffer, device: ml.Device) -> Any:
    source = ml.MPSImageBatch.from_array(device, np.zeros((2, 3), np.float32))
    return ml.MPSNNInitialGradient(device).encode_batch(buffer, source)


def test_status_goes_from_not_enqueued_to_completed(buffer: ml.CommandBuffer) -> None:
    assert buffer.status is Status.NOT_ENQUEUED
    buffer.enqueue()
    assert buffer.status is Status.ENQUEUED
    buffer.commit()
    assert Status.COMMITTED <= buffer.status <= Status.COMPLETED
    buffer.wait_until_completed(timeout=LONG)
    assert buffer.status is Status.COMPLETED
    assert buffer.error is None


def test_a_committed_buffer_behind_another_stays_committed(queue: ml.CommandQueue) -> None:
    later = queue.make_command_buffer()
    with blocked(queue):
        later.commit()
        assert later.status in (Status.COMMITTED, Status.SCHEDULED)
        with pytest.raises(TimeoutError):
            later.wait_until_completed(timeout=0.05)
        with pytest.raises(TimeoutError):
            later.wait_until_completed(timeout=0)
        assert later.status in (Status.COMMITTED, Status.SCHEDULED)
    later.wait_until_completed(timeout=LONG)
    assert later.status is Status.COMPLETED


def test_buffers_run_in_the_order_of_enqueue_not_of_commit(
    queue: ml.CommandQueue, device: ml.Device
) -> None:
    kernel = ml.MPSNNLossGradient(device, ml.MPSCNNLossDescriptor("mean_absolute_error"))
    first, second = queue.make_command_buffer(), queue.make_command_buffer()
    gradient = ones(first, device)
    y, t = np.full((2, 3), 2, np.float32), np.ones((2, 3), np.float32)
    result = kernel.encode_batch(second, gradient, y, t)
    first.enqueue()
    second.enqueue()
    second.commit()
    with pytest.raises(TimeoutError):
        second.wait_until_completed(timeout=0.05)
    first.commit()
    second.wait_until_completed(timeout=LONG)
    assert first.status is Status.COMPLETED
    # Had the second run before the first, its source gradient would have been 0.
    assert (result.to_array() == 1).all()


def test_without_enqueue_the_order_is_that_of_commit(
    queue: ml.CommandQueue, device: ml.Device
) -> None:
    opened = [queue.make_command_buffer() for _ in range(32)]
    results = [ones(buffer, device) for buffer in opened]
    in_order: list[bool] = []
    for i in reversed(range(32)):
        # What was committed before, which is what was opened later, has to be done by then.
        before = opened[i:]
        opened[i].add_completed_handler(
            lambda _, before=before: in_order.append(
                all(buffer.status is Status.COMPLETED for buffer in before)
            )
        )
        opened[i].commit()
    for buffer in opened:
        buffer.wait_until_completed(timeout=LONG)
    assert in_order == [True] * 32
    assert all((result.to_array() == 1).all() for result in results)


def test_queues_do_not_wait_for_each_other(device: ml.Device) -> None:
    with blocked(device.make_command_queue()):
        run(device.make_command_queue().make_command_buffer())


def test_an_enqueued_buffer_that_is_dropped_gives_up_its_place(queue: ml.CommandQueue) -> None:
    dropped, later = queue.make_command_buffer(), queue.make_command_buffer()
    dropped.enqueue()
    later.commit()
    with pytest.raises(TimeoutError):
        later.wait_until_completed(timeout=0.05)
    del dropped
    gc.collect()
    later.wait_until_completed(timeout=LONG)


def test_an_enqueued_buffer_that_is_discarded_gives_up_its_place(queue: ml.CommandQueue) -> None:
    discarded, later = queue.make_command_buffer(), queue.make_command_buffer()
    with pytest.raises(KeyError, match="the reason"), discarded:  # noqa: PT012
        discarded.enqueue()
        later.commit()
        raise KeyError("the reason")
    later.wait_until_completed(timeout=LONG)


def test_discarding_frees_handlers_and_results_are_never_readable(
    queue: ml.CommandQueue, device: ml.Device
) -> None:
    called: list[Any] = []
    with pytest.raises(ZeroDivisionError), queue.make_command_buffer() as buffer:  # noqa: PT012
        result = ones(buffer, device)
        buffer.add_completed_handler(called.append)
        raise ZeroDivisionError
    assert called == []
    assert buffer.status < Status.COMMITTED
    with pytest.raises(RuntimeError):
        result.to_array()
    with pytest.raises(RuntimeError):
        np.asarray(result)


def test_leaving_a_with_block_commits_and_waits(queue: ml.CommandQueue, device: ml.Device) -> None:
    with queue.make_command_buffer() as buffer:
        result = ones(buffer, device)
        assert buffer.status is Status.NOT_ENQUEUED
    assert buffer.status is Status.COMPLETED
    assert (result.to_array() == np.ones((2, 1, 1, 3))).all()


def test_an_empty_buffer_may_be_committed(buffer: ml.CommandBuffer) -> None:
    run(buffer)
    assert buffer.status is Status.COMPLETED


def test_times_are_zero_until_finished_and_then_ordered(
    queue: ml.CommandQueue, device: ml.Device
) -> None:
    earlier, later = queue.make_command_buffer(), queue.make_command_buffer()
    ones(earlier, device)
    ones(later, device)
    assert (earlier.gpu_start_time, earlier.gpu_end_time) == (0.0, 0.0)
    with blocked(queue):
        earlier.commit()
        later.commit()
        assert (later.gpu_start_time, later.gpu_end_time) == (0.0, 0.0)
    later.wait_until_completed(timeout=LONG)
    assert 0 < earlier.gpu_start_time <= earlier.gpu_end_time
    assert earlier.gpu_end_time <= later.gpu_end_time
    assert later.gpu_start_time <= later.gpu_end_time


def test_handlers_are_called_once_with_the_buffer_before_wait_returns(
    buffer: ml.CommandBuffer,
) -> None:
    seen: list[tuple[str, Any, Any]] = []

    def slow(given: ml.CommandBuffer) -> None:
        time.sleep(0.05)  # long enough for a wait that does not wait for handlers to overtake
        seen.append(("slow", given, given.status))

    buffer.add_completed_handler(slow)
    buffer.add_completed_handler(lambda given: seen.append(("fast", given, given.status)))
    buffer.commit()
    buffer.wait_until_completed(timeout=LONG)
    buffer.wait_until_completed()
    assert sorted(name for name, _, _ in seen) == ["fast", "slow"]
    assert all(given is buffer or given == buffer for _, given, _ in seen)
    assert all(status is Status.COMPLETED for _, _, status in seen)


def test_results_are_readable_inside_a_handler(queue: ml.CommandQueue, device: ml.Device) -> None:
    buffer = queue.make_command_buffer()
    result = ones(buffer, device)
    arrays: list[np.ndarray] = []
    buffer.add_completed_handler(lambda _: arrays.append(result.to_array()))
    run(buffer)
    assert (arrays[0] == 1).all()


def test_waiting_inside_its_own_handler_is_an_error(buffer: ml.CommandBuffer) -> None:
    errors: list[BaseException] = []

    def handler(given: ml.CommandBuffer) -> None:
        try:
            given.wait_until_completed(timeout=5)
        except BaseException as error:
            errors.append(error)

    buffer.add_completed_handler(handler)
    run(buffer)
    assert [type(error) for error in errors] == [RuntimeError]
    assert "handler" in str(errors[0])


def test_a_raising_handler_is_reported_and_the_others_still_run(
    buffer: ml.CommandBuffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: reported.append(report.exc_type))
    called: list[str] = []

    def raising(_: ml.CommandBuffer) -> None:
        called.append("raising")
        raise LookupError("raised by a handler")

    buffer.add_completed_handler(raising)
    buffer.add_completed_handler(lambda _: called.append("other"))
    run(buffer)
    assert sorted(called) == ["other", "raising"]
    assert reported == [LookupError]
    assert buffer.status is Status.COMPLETED
    assert buffer.error is None


def test_many_threads_may_wait_for_one_buffer(queue: ml.CommandQueue) -> None:
    buffer = queue.make_command_buffer()
    seen: list[Status] = []

    def wait() -> None:
        buffer.wait_until_completed(timeout=LONG)
        seen.append(buffer.status)

    with blocked(queue):
        buffer.commit()
        waiting = [threading.Thread(target=wait, daemon=True) for _ in range(8)]
        for thread in waiting:
            thread.start()
        # A wait that kept the interpreter lock would never let this thread end the block.
        assert not seen
    for thread in waiting:
        thread.join(LONG)
    assert seen == [Status.COMPLETED] * 8


def test_a_buffer_finishes_although_nobody_holds_it_or_its_queue(device: ml.Device) -> None:
    finished = threading.Event()
    buffer = device.make_command_queue().make_command_buffer()
    ones(buffer, device)
    buffer.add_completed_handler(lambda _: finished.set())
    buffer.commit()
    del buffer
    gc.collect()
    assert finished.wait(LONG)
