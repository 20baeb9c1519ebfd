"""The operands of an encode: their textures, and what an encode does to their read counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

import mpsnn_loss as ml
from mpsnn_loss._conformance import objective_c as objc
from mpsnn_loss._conformance.case import Case
from mpsnn_loss._conformance.inputs import plain, weights_with_zeros
from mpsnn_loss._conformance.judging import Record, fact
from mpsnn_loss._conformance.problems import Problem, telling
from mpsnn_loss._conformance.raw_objects import (
    FORWARD,
    GRADIENT,
    Buffer,
    Images,
    only_with_objects,
)

CHANNELS = range(1, 9)
FORMATS = ("float16", "float32")


# --- Textures: from 5 channels on they are arrays, and those of 1x1x1 losses are not ---


def problem_of(dtype: str, channels: int) -> Problem:
    shape = (2, 3, 5, channels)
    problem = plain("mean_squared_error", "sum", shape)
    return replace(
        problem,
        predictions=problem.predictions.astype(dtype),
        labels=problem.labels.astype(dtype),
        weights=weights_with_zeros("mean_squared_error", shape).astype(dtype),
        source_gradients=problem.source_gradients.astype(dtype),
    )


def sources(device: ml.Device, problem: Problem) -> dict[str, ml.MPSImageBatch]:
    return {
        name: ml.MPSImageBatch.from_array(device, getattr(problem, name))
        for name in ("source_gradients", "predictions", "labels", "weights")
    }


def texture_facts(batch: ml.MPSImageBatch) -> dict[str, Any]:
    image = batch[0].objc_pointer or 0
    names = ("textureType", "pixelFormat", "storageMode", "usage", "arrayLength")
    texture = objc.send(image, "texture")
    facts = {name: objc.send(texture, name) for name in names}
    own = ("textureType", "pixelFormat", "usage", "featureChannelFormat")
    return {**facts, "image": {name: objc.send(image, name) for name in own}}


def textures_of_sources(dtype: str, device: ml.Device) -> Record:
    results = []
    for channels in CHANNELS:
        for name, batch in sources(device, problem_of(dtype, channels)).items():
            results.append(fact(f"{name}, {channels} channels", texture_facts(batch)))
    return {"results": results}


def textures_of_results(dtype: str, channels: int, device: ml.Device) -> Record:
    """The encode beside them is the risk: more than 4 channels are an array, g is none."""
    problem = problem_of(dtype, channels)
    given = sources(device, problem)
    g, y, t, v = given.values()
    forward = ml.MPSNNForwardLoss(device, problem.descriptor)
    gradient = ml.MPSNNLossGradient(device, problem.descriptor)
    buffer = device.make_command_queue().make_command_buffer()
    with telling(buffer):
        made = {
            "losses": forward.encode_batch(buffer, y, t, v),
            "gradients": gradient.encode_batch(buffer, g, y, t, v),
        }
    return {"results": [fact(name, texture_facts(batch)) for name, batch in made.items()]}


# --- Read counts ---

ARGUMENTS = {
    "forward": (FORWARD, ("sourceImages", "labels", "weights")),
    "gradient": (GRADIENT, ("sourceGradients", "sourceImages", "labels", "weights")),
}
READS = 5  # more than any encode may take


def temporary_ones(device: ml.Device, buffer: Buffer, shape: tuple[int, ...]) -> int:
    """A batch of temporary images that the GPU has filled with ones, to be read READS times."""
    like = Images.of(device, np.ones(shape, np.float32))
    initial = ml.MPSNNInitialGradient(device)
    name = "encodeBatchToCommandBuffer:sourceImages:"
    batch = int(objc.send(initial.objc_pointer or 0, name, buffer.pointer, like.batch))
    set_read_counts(batch, READS)
    return batch


def set_read_counts(batch: int, count: int) -> None:
    for i in range(objc.send(batch, "count")):
        objc.send(objc.send(batch, "objectAtIndex:", i), "setReadCount:", count, returns=None)


def read_counts(
    kind: str, temporary: tuple[str, ...], documented: int | None, device: ml.Device
) -> Record:
    """One encode with one temporary batch in these arguments, and other images in the rest."""
    encode, names = ARGUMENTS[kind]
    descriptor = plain("mean_squared_error").descriptor
    kernel: ml.MPSKernel = (ml.MPSNNForwardLoss(device, descriptor) if kind == "forward"
                            else ml.MPSNNLossGradient(device, descriptor))  # fmt: skip
    queue = device.make_command_queue()
    buffer = Buffer.of(queue)
    shapes = {name: (2, 3, 5, 7) for name in names} | {"sourceGradients": (2, 1, 1, 1)}
    ones = {name: Images.of(device, np.ones(shapes[name], np.float32)).batch for name in names}
    batch = temporary_ones(device, buffer, shapes[temporary[0]])
    operands = [batch if name in temporary else ones[name] for name in names]
    result = Images.make(device, (2, 1, 1, 1) if kind == "forward" else (2, 3, 5, 7), "float32")
    before = [objc.send(objc.send(batch, "objectAtIndex:", i), "readCount") for i in range(2)]
    objc.send(kernel.objc_pointer or 0, encode, buffer.pointer, *operands, 0, result.batch,
              returns=None)  # fmt: skip
    after = [objc.send(objc.send(batch, "objectAtIndex:", i), "readCount") for i in range(2)]
    if any(after):
        set_read_counts(batch, 0)
    buffer.run(*result.pointers)
    expected = None if documented is None else [documented] * 2
    return {"results": [fact("readCount before", before, [READS] * 2),
                        fact("readCount after", after, expected)]}  # fmt: skip


def operands() -> Iterator[Case]:
    runs: dict[str, Any] = {}
    for dtype in FORMATS:
        runs[f"textures/sources/{dtype}"] = partial(textures_of_sources, dtype)
        for channels in CHANNELS:
            name = f"textures/results/{dtype}, {channels} channels"
            runs[name] = partial(textures_of_results, dtype, channels)
    for kind, (_, names) in ARGUMENTS.items():
        for name in names:
            runs[f"read counts/{kind}, {name}"] = partial(read_counts, kind, (name,), READS - 1)
        pair = ("sourceImages", "labels")  # no document tells whether this is one use or two
        runs[f"read counts/{kind}, one image in two arguments"] = partial(
            read_counts, kind, pair, None
        )
    for name, run in runs.items():
        yield Case(f"operands/{name}", partial(only_with_objects, run), is_risky=True)
