"""What fresh objects of Apple report of themselves, read through messages and no table of ours."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import mpsnn_loss as ml
from mpsnn_loss._conformance import objective_c as objc
from mpsnn_loss._conformance.case import Case
from mpsnn_loss._conformance.inputs import plain
from mpsnn_loss._conformance.judging import Record, fact
from mpsnn_loss._conformance.raw_objects import only_with_objects, raw_descriptor

Read = Callable[[int, str], Any]


def number(pointer: int, name: str) -> int:
    return int(objc.send(pointer, name))


def real(pointer: int, name: str) -> float:
    return float(objc.send(pointer, name, returns=ctypes.c_float))


def offset(pointer: int, name: str) -> list[int]:
    found = objc.send(pointer, name, returns=objc.Offset)
    return [found.x, found.y, found.z]


def region(pointer: int, name: str) -> list[int]:
    return list(objc.send(pointer, name, returns=objc.Region).numbers)


def string(pointer: int, name: str) -> str | None:
    found = objc.send(pointer, name)
    return objc.text(found) if found else None


def thing(pointer: int, name: str) -> str:
    found = objc.send(pointer, name)
    return objc.class_name_of(found) if found else "nil"


def method_of_padding(pointer: int, name: str) -> int:
    return number(objc.send(pointer, name), "paddingMethod")


# The properties that MPSKernel.h, MPSCNNKernel.h and MPSCNNLoss.h declare, by how they are read.
COMMON: dict[Read, str] = {
    region: "clipRect",
    number: "options destinationFeatureChannelOffset",
    objc.flag: "isBackwards isStateModified isResultStateReusedAcrossBatch appendBatchBarrier",
    string: "label",
    thing: "padding destinationImageAllocator",
    method_of_padding: "padding",
}
UNARY: dict[Read, str] = {
    offset: "offset",
    number: "sourceFeatureChannelOffset sourceFeatureChannelMaxCount edgeMode kernelWidth"
    " kernelHeight strideInPixelsX strideInPixelsY dilationRateX dilationRateY",
}
SIDE = (
    "SourceFeatureChannelOffset SourceFeatureChannelMaxCount EdgeMode KernelWidth KernelHeight"
    " StrideInPixelsX StrideInPixelsY DilationRateX DilationRateY"
)
BINARY: dict[Read, str] = {
    offset: "primaryOffset secondaryOffset",
    number: " ".join(side + name for side in ("primary", "secondary") for name in SIDE.split()),
}
LOSS: dict[Read, str] = {
    number: "lossType reductionType numberOfClasses",
    real: "weight labelSmoothing epsilon delta",
    objc.flag: "reduceAcrossBatch",
}
LABELS: dict[Read, str] = {objc.flag: "computeLabelGradients"}

OBJECTS: dict[str, tuple[dict[Read, str], ...]] = {
    "MPSNNForwardLoss": (COMMON, UNARY, LOSS),
    "MPSNNLossGradient": (COMMON, BINARY, LOSS, LABELS),
    "MPSNNInitialGradient": (COMMON, UNARY),
    "MPSCNNLossDescriptor": (LOSS,),
}


def fresh_object(name: str, device: ml.Device) -> int:
    """Made as its header says and never touched; alive as long as the autorelease pool."""
    descriptor = raw_descriptor(plain("huber"))
    if name == "MPSCNNLossDescriptor":
        numbers = (6, 0)  # Huber, no reduction
        kind = objc.class_named(name)
        return int(objc.send(kind, "cnnLossDescriptorWithType:reductionType:", *numbers))
    fresh = objc.send(objc.class_named(name), "alloc")
    if name == "MPSNNInitialGradient":
        fresh = objc.send(fresh, "initWithDevice:", device.objc_pointer)
    else:
        init = "initWithDevice:lossDescriptor:"
        fresh = objc.send(fresh, init, device.objc_pointer, descriptor)
    return int(objc.send(fresh, "autorelease"))


def report(name: str, device: ml.Device) -> Record:
    pointer = fresh_object(name, device)
    results = [fact("class", objc.class_name_of(pointer), name)]
    for table in OBJECTS[name]:
        for read, properties in table.items():
            for each in properties.split():
                what = "paddingMethod of padding" if read is method_of_padding else each
                try:
                    results.append(fact(what, read(pointer, each)))
                except LookupError as error:
                    results.append(fact(what, f"not here: {error}"))
    return {"results": results}


def fresh() -> Iterator[Case]:
    for name in OBJECTS:
        run = partial(only_with_objects, partial(report, name))
        yield Case(f"fresh/{name}", run, is_risky=True)
