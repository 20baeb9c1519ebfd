"""Facts about the kernel objects: defaults, what survives a copy, an archive and an encode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import mpsnn_loss as ml
from mpsnn_loss._conformance.case import Case
from mpsnn_loss._conformance.inputs import plain
from mpsnn_loss._conformance.judging import (
    Record,
    absent,
    expected,
    expected_refusal,
    fact,
    plain_value,
    refusal,
)
from mpsnn_loss._conformance.rows import INHERITED

Kernel = ml.MPSNNLossGradient
NO_CLIP = None
ULONG_MAX = 2**64 - 1

# MPSCNNKernel.h names these defaults of an MPSCNNBinaryKernel; None where it is silent.
DEFAULTS: dict[str, Any] = {
    "primary_offset": (0, 0, 0),
    "secondary_offset": (0, 0, 0),
    "destination_feature_channel_offset": 0,
    "primary_source_feature_channel_offset": 0,
    "secondary_source_feature_channel_offset": 0,
    "primary_source_feature_channel_max_count": ULONG_MAX,
    "secondary_source_feature_channel_max_count": ULONG_MAX,
    "primary_edge_mode": 0,
    "secondary_edge_mode": 0,
    "primary_kernel_width": 1,
    "primary_kernel_height": 1,
    "secondary_kernel_width": 1,
    "secondary_kernel_height": 1,
    "primary_stride_in_pixels_x": 1,
    "primary_stride_in_pixels_y": 1,
    "secondary_stride_in_pixels_x": 1,
    "secondary_stride_in_pixels_y": 1,
    "primary_dilation_rate_x": None,
    "primary_dilation_rate_y": None,
    "secondary_dilation_rate_x": None,
    "secondary_dilation_rate_y": None,
    "is_backwards": None,
    "is_state_modified": None,
    "padding": 16,
    "destination_image_allocator": "temporary_image",
    "options": None,
    "label": None,
    # MPSCNNLoss.h, of the descriptor
    "weight": 1.0,
    "label_smoothing": 0.0,
    "epsilon": 1e-7,
    "delta": 1.0,
    "compute_label_gradients": False,
}
# A value for each property that can be set, other than its default.
CHANGED: dict[str, Any] = {
    **INHERITED,
    "padding": 0,
    "destination_image_allocator": "image",
    "options": 8,
    "label": "changed",
    "weight": 1.5,
    "label_smoothing": 0.25,
    "epsilon": 2.0**-10,
    "delta": 0.75,
    "compute_label_gradients": True,
}


def properties(kernel: ml.MPSKernel) -> dict[str, Any]:
    return {name: plain_value(getattr(kernel, name)) for name in DEFAULTS if hasattr(kernel, name)}


def make_kernel(device: ml.Device) -> Kernel:
    return Kernel(device, ml.MPSCNNLossDescriptor("huber", "sum"))


def changed_kernel(device: ml.Device) -> Kernel:
    kernel = make_kernel(device)
    for name, value in CHANGED.items():
        setattr(kernel, name, value)
    return kernel


def defaults(device: ml.Device) -> Record:
    kernel = make_kernel(device)
    results = [fact(name, value, DEFAULTS[name]) for name, value in properties(kernel).items()]
    results.append(expected("clip_rect", kernel.clip_rect, NO_CLIP))
    return {"results": results}


def survivors(before: Kernel, after: Kernel) -> list[Record]:
    """Which properties of one kernel the other has too."""
    names = [*CHANGED, "loss_type", "reduction_type", "reduce_across_batch", "number_of_classes"]
    return [expected(name, getattr(after, name), getattr(before, name)) for name in names]


def copied(device: ml.Device) -> Record:
    kernel = changed_kernel(device)
    return {"results": survivors(kernel, kernel.copy())}


def after_an_encode(device: ml.Device) -> Record:
    """Encoding with destinations leaves the kernel as the user left it."""
    problem = plain("huber")
    kernel = Kernel(device, problem.descriptor)
    before = properties(kernel)
    kernel(problem.predictions, problem.labels)
    after = properties(kernel)
    return {"results": [expected(name, after[name], before[name]) for name in before]}


# --- Archives: the package's own, and Apple's where the device has one ---

Read = Callable[[bytes, ml.Device], Any]


def archive_results(
    device: ml.Device, data: bytes, other: bytes, read: Read, readers: list[ml.Device]
) -> list[Record]:
    """`other` is the archive of a kernel of another class, `readers` can read `data`."""
    results = survivors(changed_kernel(device), read(data, device))
    for name, wrong in {
        "another class": other,
        "nothing": b"",
        "the first half": data[: len(data) // 2],
        "all but the last byte": data[:-1],
    }.items():
        results.append(expected_refusal(name, ValueError, partial(read, wrong, device)))
    for target in readers:
        name = f"read on {target.name}"
        try:
            results.append(fact(name, read(data, target).device.name))
        except (RuntimeError, TypeError, ValueError) as error:
            results.append(refusal(name, error))
    return results


def own_archive(device: ml.Device) -> Record:
    data = changed_kernel(device).to_bytes()
    other = ml.MPSNNForwardLoss(device, ml.MPSCNNLossDescriptor("huber", "sum")).to_bytes()
    results = archive_results(device, data, other, Kernel.from_bytes, ml.devices())
    return {"results": results}


def apple_archive(device: ml.Device) -> Record:
    read = getattr(Kernel, "from_archived_data", None)
    if read is None or device.objc_pointer is None:
        return {"results": [absent("archived_data", "it has no NSKeyedArchiver")]}
    data = getattr(changed_kernel(device), "archived_data", bytes)()
    other = getattr(ml.MPSNNInitialGradient(device), "archived_data", bytes)()
    readers = [each for each in ml.devices() if each.kind == device.kind]
    results = archive_results(device, data, other, read, readers)
    return {"archive": data.hex(), "results": results}


def objects() -> Iterator[Case]:
    runs: dict[str, Callable[[ml.Device], Record]] = {
        "defaults": defaults,
        "copy": copied,
        "an encode": after_an_encode,
        "archive": own_archive,
    }
    for name, run in runs.items():
        yield Case(f"object/{name}", run)
    yield Case("object/archive of Apple", apple_archive, is_risky=True)
