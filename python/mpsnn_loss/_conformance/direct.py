"""Apple's own encodes, without the package's checks: what it refuses, fills in or hides.

The package makes the kernels, messages do the rest. Each case is risky, as nothing stands between a
mistake and the process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

import mpsnn_loss as ml
from mpsnn_loss._conformance import objective_c as objc
from mpsnn_loss._conformance.case import USUAL, Case, solve
from mpsnn_loss._conformance.inputs import plain, source_gradients, weights_with_zeros
from mpsnn_loss._conformance.judging import Record, fact
from mpsnn_loss._conformance.raw_objects import (
    GRADIENT,
    RETURNING,
    Buffer,
    Images,
    only_with_objects,
    with_messages,
)

# --- Facts ---


def image_facts(pointer: int) -> list[tuple[str, Any]]:
    names = ("width", "height", "featureChannels", "featureChannelFormat", "numberOfImages")
    facts: list[tuple[str, Any]] = [("class", objc.class_name_of(pointer))]
    facts += [(name, objc.send(pointer, name)) for name in names]
    if objc.responds(pointer, "readCount"):
        facts.append(("readCount", objc.send(pointer, "readCount")))
    else:  # asking a temporary image for its texture could end the process
        facts.append(("storageMode", objc.send(objc.send(pointer, "texture"), "storageMode")))
    return facts


def offsets(kernel: ml.MPSNNLossGradient) -> dict[str, Any]:
    return {name: getattr(kernel, name)
            for name in ("primary_offset", "secondary_offset", "clip_rect")}  # fmt: skip


def returning_encode(allocator: str, device: ml.Device) -> Record:
    """What the encode that returns images makes, and what it does to the kernel."""
    problem = plain("huber", delta=0.75)
    arrays = (problem.source_gradients, problem.predictions, problem.labels)
    sources = [Images.of(device, array) for array in arrays]
    kernel = ml.MPSNNLossGradient(device, problem.descriptor)
    kernel.destination_image_allocator = allocator  # type: ignore[assignment]
    queue, before = device.make_command_queue(), offsets(kernel)
    buffer = Buffer.of(queue)
    batch = objc.send(kernel.objc_pointer or 0, RETURNING, buffer.pointer,
                      *(each.batch for each in sources), 0, 0)  # fmt: skip
    count = objc.send(batch, "count")
    image = objc.send(batch, "objectAtIndex:", 0)
    results = [fact("images", count, len(problem.predictions))]
    results += [fact(name, value) for name, value in image_facts(image)]
    results += [fact(f"{name} before", str(value)) for name, value in before.items()]
    results += [fact(f"{name} after", str(value)) for name, value in offsets(kernel).items()]
    if objc.responds(image, "readCount"):
        for i in range(count):  # nobody reads them
            objc.send(objc.send(batch, "objectAtIndex:", i), "setReadCount:", 0, returns=None)
    buffer.run()
    return {"results": results}


def read_counts(device: ml.Device) -> Record:
    """A temporary source gradient, read by one encode."""
    problem = plain("huber")
    y, t = (Images.of(device, array) for array in (problem.predictions, problem.labels))
    ones = Images.of(device, problem.source_gradients)
    initial = ml.MPSNNInitialGradient(device)
    kernel = ml.MPSNNLossGradient(device, problem.descriptor)
    destination = Images.make(device, problem.predictions.shape, "float32")
    queue = device.make_command_queue()
    buffer = Buffer.of(queue)
    encode = "encodeBatchToCommandBuffer:sourceImages:"
    g = objc.send(initial.objc_pointer or 0, encode, buffer.pointer, ones.batch)
    image = objc.send(g, "objectAtIndex:", 0)
    before = objc.send(image, "readCount")
    objc.send(kernel.objc_pointer or 0, GRADIENT, buffer.pointer, g, y.batch, t.batch,
              0, 0, destination.batch, returns=None)  # fmt: skip
    after = objc.send(image, "readCount")
    results = [fact("readCount before", before, 1), fact("readCount after", after, 0)]
    if after:
        for i in range(objc.send(g, "count")):
            objc.send(objc.send(g, "objectAtIndex:", i), "setReadCount:", 0, returns=None)
    buffer.run(*destination.pointers)
    return {"results": results}


def kernel_facts(device: ml.Device) -> Record:
    kernel = ml.MPSNNLossGradient(device, plain("huber").descriptor)
    pointer = kernel.objc_pointer or 0
    image = Images.make(device, (1, 3, 5, 7), "float32")
    results = [fact(name, objc.flag(pointer, name), value)
               for name, value in (("isResultStateReusedAcrossBatch", False),
                                   ("appendBatchBarrier", False), ("isStateModified", None),
                                   ("isBackwards", None))]  # fmt: skip
    for name in ("padding", "destinationImageAllocator"):
        results.append(fact(f"class of {name}", objc.class_name_of(objc.send(pointer, name))))
    results.append(fact("MPSRectNoClip", objc.region_constant("MPSRectNoClip")))
    results += [fact(f"an image: {name}", value) for name, value in image_facts(image.pointers[0])]
    return {"results": results}


def state_facts(device: ml.Device) -> Record:
    """What a forward loss makes of the states of its results."""
    problem = plain("huber")
    y = Images.of(device, problem.predictions)
    loss = Images.make(device, (len(problem.predictions), 1, 1, 1), "float32")
    kernel = ml.MPSNNForwardLoss(device, problem.descriptor)
    name = "resultStateBatchForSourceImage:sourceStates:destinationImage:"
    batch = objc.send(kernel.objc_pointer or 0, name, y.batch, 0, loss.batch)
    results = [fact("states", "nil" if batch == 0 else str(objc.send(batch, "count")))]
    if batch:
        state = objc.send(batch, "objectAtIndex:", 0)
        same = state == objc.send(batch, "objectAtIndex:", objc.send(batch, "count") - 1)
        results += [
            fact("class", objc.class_name_of(state)),
            fact("isTemporary", objc.flag(state, "isTemporary")),
            fact("readCount", objc.send(state, "readCount")),
            fact("resourceCount", objc.send(state, "resourceCount")),
            fact("one object for the batch", same),
        ]
    return {"results": results}


def direct() -> Iterator[Case]:
    v = weights_with_zeros("mean_squared_error") + np.float32(0.25)
    unlike = source_gradients("sum")
    problems = {
        "plain": plain("mean_squared_error", "none"),
        "weights of one channel": plain("mean_squared_error", "none", weights=v[..., :1]),
        "weights of one pixel": plain("mean_squared_error", "none", weights=v[:, :1, :1, :]),
        "source gradient of one value under none": plain(
            "mean_squared_error", "none", source_gradients=unlike
        ),
        "source gradient of full size under sum": plain(
            "mean_squared_error", "sum", source_gradients=source_gradients("none")
        ),
        "8192 channels": plain("mean_squared_error", "none", (1, 1, 1, 8192)),
        "8189 channels": plain("mean_squared_error", "none", (1, 1, 1, 8189)),
    }
    for name, problem in problems.items():
        run = partial(
            only_with_objects, partial(solve, problem, {"messages": with_messages}, USUAL)
        )
        yield Case(f"direct/{name}", run, is_risky=True, problem=problem)
    facts: dict[str, Callable[[ml.Device], Record]] = {
        "kernel and image": kernel_facts,
        "returning encode, temporary images": partial(returning_encode, "temporary_image"),
        "returning encode, images": partial(returning_encode, "image"),
        "read counts": read_counts,
        "states": state_facts,
    }
    for name, read in facts.items():
        yield Case(f"direct/{name}", partial(only_with_objects, read), is_risky=True)
