"""What shows over many terms, repeats, threads, buffers and processes, and what a call costs."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

import mpsnn_loss as ml
from mpsnn_loss._conformance import objective_c as objc
from mpsnn_loss._conformance.case import BY_KERNELS, USUAL, Case, solve
from mpsnn_loss._conformance.inputs import everything_on, plain
from mpsnn_loss._conformance.judging import Expectation, Record, expected, fact
from mpsnn_loss._conformance.problems import Problem, Values, with_kernels
from mpsnn_loss._conformance.raw_objects import (
    GRADIENT,
    Buffer,
    Images,
    only_with_objects,
    with_messages,
)

REPEATS = 5
THREADS, ROUNDS = 4, 20
BUFFERS = 65  # one more than a queue has at a time
CALLS = 20
FORK_SECONDS = 20.0


# --- Many terms, and the same again ---


def distinct(results: list[Values]) -> int:
    return len({result.tobytes() for result in results})


def long_sum(exponent: int, device: ml.Device) -> Record:
    """The terms are exact in float32, and so is their sum in float64."""
    side = 2 ** (exponent // 2)
    problem = plain("mean_squared_error", "sum", (1, side, side, 1))
    error = problem.predictions.astype(np.float64) - problem.labels
    exact = float(np.sum(error * error))
    losses = [with_kernels(device, problem, ("loss",))["loss"] for _ in range(REPEATS)]
    value = float(losses[0].ravel()[0])
    return {"results": [fact("terms", error.size), fact("sum", value), fact("exact sum", exact),
                        fact("relative error", abs(value - exact) / exact),
                        fact(f"different results of {REPEATS}", distinct(losses))]}  # fmt: skip


def repeated(problem: Problem, device: ml.Device) -> Record:
    record = solve(problem, BY_KERNELS, USUAL, device)
    answers = [with_kernels(device, problem, USUAL) for _ in range(REPEATS)]
    for name in USUAL:
        different = distinct([answer[name] for answer in answers])
        record["results"].append(fact(f"different results of {REPEATS}: {name}", different))
    return record


def in_threads(device: ml.Device) -> Record:
    """Each thread has its own queue and kernels."""
    problem = everything_on("softmax_cross_entropy", "mean")
    alone = with_kernels(device, problem, USUAL)

    def work(_: int) -> bool:
        answers = [with_kernels(device, problem, USUAL) for _ in range(ROUNDS)]
        return all(distinct([answer[name], alone[name]]) == 1 for answer in answers
                   for name in USUAL)  # fmt: skip

    with ThreadPoolExecutor(THREADS) as threads:
        same = list(threads.map(work, range(THREADS)))
    return {"results": [expected(f"the same bits in thread {i}", each, True)
                        for i, each in enumerate(same)]}  # fmt: skip


# --- Buffers ---


def dropped_buffers(device: ml.Device) -> Record:
    """If those that nobody committed kept their places, the new one would never come."""
    queue = device.make_command_queue()
    for _ in range(BUFFERS):
        with objc.autorelease_pool():
            Buffer.of(queue)
    status = objc.send(Buffer.of(queue).pointer, "status")
    return {"results": [fact(f"status of a new buffer after {BUFFERS} dropped", status, 0)]}


def dropped_encodes(device: ml.Device) -> Record:
    problem = plain("huber")
    kernel = ml.MPSNNForwardLoss(device, problem.descriptor)
    queue = device.make_command_queue()
    for _ in range(BUFFERS):
        kernel.encode_batch(queue.make_command_buffer(), problem.predictions, problem.labels)
    with queue.make_command_buffer() as buffer:
        loss = kernel.encode_batch(buffer, problem.predictions, problem.labels)
    return {"results": [Expectation(problem, "loss").judge("loss", loss.to_array())]}


def readback(device: ml.Device) -> Record:
    """The same images read before and after they were synchronised."""
    problem = plain("mean_squared_error", "none")
    arrays = (problem.source_gradients, problem.predictions, problem.labels)
    sources = [Images.of(device, array) for array in arrays]
    gradient = Images.make(device, problem.predictions.shape, "float32")
    kernel = ml.MPSNNLossGradient(device, problem.descriptor)
    queue = device.make_command_queue()
    buffer = Buffer.of(queue)
    objc.send(kernel.objc_pointer or 0, GRADIENT, buffer.pointer,
              *(each.batch for each in sources), 0, 0, gradient.batch, returns=None)  # fmt: skip
    buffer.run()
    before = gradient.values()
    Buffer.of(queue).run(*gradient.pointers)
    after = gradient.values()
    texture = objc.send(gradient.pointers[0], "texture")
    results = [
        fact("storageMode", objc.send(texture, "storageMode")),
        fact("the same bits without synchronise", distinct([before, after]) == 1),
        Expectation(problem, "predictions").judge("with synchronise", after),
    ]
    return {"results": results}


# --- Another process ---


def after_fork(use: Callable[[ml.Device], Any], device: ml.Device) -> Record:
    """What a child says that uses the device as its parent did; it may hang."""
    use(device)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            use(device)
            words = "it works"
        except BaseException as error:
            words = f"{type(error).__name__}: {error}"
        os.write(writer, words.encode()[:4000])
        os._exit(0)
    os.close(writer)
    end = wait_for(child)
    with os.fdopen(reader, "rb") as stream:
        words = stream.read().decode()
    return {"results": [fact("in a child after fork", words or end)]}


def wait_for(child: int) -> str:
    deadline = time.monotonic() + FORK_SECONDS
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return f"ended with code {os.waitstatus_to_exitcode(status)}"
        time.sleep(0.05)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return f"did not end in {FORK_SECONDS:g} s"


def by_package(device: ml.Device) -> None:
    with_kernels(device, plain("huber"), USUAL)


def by_messages(device: ml.Device) -> None:
    with objc.autorelease_pool():
        with_messages(device, plain("huber"), USUAL)


# --- What a call costs ---


def times_of_an_encode(device: ml.Device) -> Record:
    """Milliseconds from the command buffer to its completion, first in the process and later."""
    problem = plain("softmax_cross_entropy", "mean", (1, 1, 256, 10))
    kernel = ml.MPSNNForwardLoss(device, problem.descriptor)
    arrays = (problem.predictions, problem.labels)
    y, t = (ml.MPSImageBatch.from_array(device, array) for array in arrays)
    queue = device.make_command_queue()
    times = []
    for _ in range(CALLS):
        start = time.perf_counter()
        with queue.make_command_buffer() as buffer:
            kernel.encode_batch(buffer, y, t)
        times.append(1e3 * (time.perf_counter() - start))
    first, *steady = times
    results = [
        fact("first", first),
        fact("median of the others", statistics.median(steady)),
        fact("fastest of the others", min(steady)),
    ]
    return {"results": results}


def endurance() -> Iterator[Case]:
    for exponent in (20, 24):
        yield Case(f"endurance/sum of 2^{exponent}", partial(long_sum, exponent), is_risky=True)
    for n, channels in ((4, 1000), (2, 8188)):
        problem = plain("softmax_cross_entropy", "mean", (n, 1, 1, channels))
        name = f"endurance/softmax over {channels} channels"
        yield Case(name, partial(repeated, problem), is_risky=True, problem=problem)
    runs: dict[str, Callable[[ml.Device], Record]] = {
        "threads with own queues": in_threads,
        "readback": partial(only_with_objects, readback),
        "fork": partial(after_fork, by_package),
        "fork, messages": partial(only_with_objects, partial(after_fork, by_messages)),
        "times of an encode": times_of_an_encode,
    }
    for name, run in runs.items():
        yield Case(f"endurance/{name}", run, is_risky=True)
    # Under a watchdog: whoever waits for a place in the queue waits for ever.
    drop = partial(only_with_objects, dropped_buffers)
    yield Case("endurance/dropped buffers", drop, is_risky=True, seconds=30.0)
    yield Case("endurance/dropped encodes", dropped_encodes, is_risky=True, seconds=30.0)
