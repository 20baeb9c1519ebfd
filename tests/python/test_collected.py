"""What the garbage collector takes, and what no assignment can break."""

from __future__ import annotations

import gc
import inspect
import threading
import weakref
from collections.abc import Callable
from typing import Any

import mpsnn_loss as ml
import numpy as np
import pytest

DEVICE = ml.cpu_device()
ONES = np.ones((2, 3), np.float32)
LONG = 60.0  # seconds: the end of a test that hangs, not a measure of anything


class Array(np.ndarray):
    """An array that can hold other objects."""


def kernel() -> Any:
    return ml.MPSNNForwardLoss(DEVICE, ml.MPSCNNLossDescriptor("mean_squared_error"))


def hold_batch(array: Any) -> Any:
    return ml.MPSImageBatch.from_array(DEVICE, array)


def hold_image(array: Any) -> Any:
    return ml.MPSImageBatch.from_array(DEVICE, array)[1]


def hold_images(array: Any) -> Any:
    batch = ml.MPSImageBatch.from_array(DEVICE, array)
    return [batch, *batch]


def hold_buffer(array: Any) -> Any:
    buffer = DEVICE.make_command_queue().make_command_buffer()
    kernel().encode_batch(buffer, array, array)
    return buffer


def hold_all(array: Any) -> Any:
    batch = ml.MPSImageBatch.from_array(DEVICE, array)
    buffer = DEVICE.make_command_queue().make_command_buffer()
    result = kernel().encode_batch(buffer, batch, array, destination_images=array.copy())
    return [*batch, buffer, result]


HOLDERS = [hold_batch, hold_image, hold_images, hold_buffer, hold_all]


@pytest.mark.parametrize("holder", HOLDERS, ids=lambda holder: holder.__name__)
def test_an_array_that_holds_what_borrows_it_is_collected_once_nobody_else_does(
    holder: Callable[[Any], Any],
) -> None:
    array = ONES.copy().view(Array)
    array.held = holder(array)
    watched, outside = weakref.ref(array), array.held
    del array
    for _ in range(3):
        gc.collect()
    alive = watched()
    assert alive is not None
    assert alive.held is outside  # and whole
    del alive, outside
    gc.collect()
    assert watched() is None


def test_work_in_flight_keeps_its_arrays_whole() -> None:
    queue = DEVICE.make_command_queue()
    gate = queue.make_command_buffer()
    gate.enqueue()
    array = ONES.copy().view(Array)
    array.held = hold = queue.make_command_buffer()
    result = kernel().encode_batch(hold, array, array + 1)
    hold.commit()
    watched = weakref.ref(array)
    del array, hold
    for _ in range(3):
        gc.collect()
    assert watched() is not None
    assert watched().held is not None
    gate.commit()
    assert (result.to_array() == 1).all()
    gc.collect()
    assert watched() is None


def test_a_handler_that_holds_the_buffer_it_waits_for_is_called_and_collected() -> None:
    queue, called = DEVICE.make_command_queue(), threading.Event()
    before, later = queue.make_command_buffer(), queue.make_command_buffer()
    before.enqueue()
    witness = ONES.copy().view(Array)
    later.add_completed_handler(lambda _, held=(before, witness): called.set())
    later.commit()
    watched = weakref.ref(witness)
    gc.collect()
    assert not called.is_set()
    del before, witness
    gc.collect()  # nobody can commit what stands before: it is dropped
    later.wait_until_completed(timeout=LONG)
    assert called.is_set()
    gc.collect()
    assert watched() is None


def test_a_buffer_that_others_wait_for_keeps_their_handlers_whole_while_it_is_held() -> None:
    queue, called = DEVICE.make_command_queue(), []
    before, *others = (queue.make_command_buffer() for _ in range(4))
    before.enqueue()
    for i, later in enumerate(others):
        later.add_completed_handler(lambda _, held=[before, i]: called.append(held[1]))
        later.commit()
        gc.collect()
    before.commit()
    for later in others:
        later.wait_until_completed(timeout=LONG)
    assert sorted(called) == [0, 1, 2]


def instances() -> list[Any]:
    batch = ml.MPSImageBatch.from_array(DEVICE, ONES)
    queue = DEVICE.make_command_queue()
    descriptor = ml.MPSCNNLossDescriptor("huber")
    image = ml.MPSImageDescriptor(width=1, height=1, feature_channels=1)
    forward = ml.MPSNNForwardLoss(DEVICE, descriptor)
    return [
        DEVICE,
        queue,
        queue.make_command_buffer(),
        batch,
        batch[0],
        descriptor,
        image,
        forward,
        ml.MPSNNLossGradient(DEVICE, descriptor),
        ml.MPSNNInitialGradient(DEVICE),
        forward.result_state_batch(ONES)[0],
    ]


CLASSES = [
    value
    for value in vars(ml).values()
    if inspect.isclass(value) and type(value).__name__ == "pybind11_type"
]


def test_no_instance_becomes_one_of_another_class() -> None:
    plain = instances()
    derived = []
    for value in plain:
        for slots in ({}, {"__slots__": ()}):
            cls = type("Derived", (type(value),), dict(slots))
            derived.append(cls)
    made = [cls(DEVICE, plain[5]) for cls in derived if issubclass(cls, ml.MPSNNForwardLoss)]
    made += [
        cls(width=1, height=1, feature_channels=1)
        for cls in derived
        if issubclass(cls, ml.MPSImageDescriptor)
    ]
    assert len(made) == 4
    for value in plain + made:
        own = next(cls for cls in type(value).__mro__ if cls in CLASSES)
        for cls in CLASSES + derived:
            if issubclass(cls, own):  # the same contents, if Python finds the layout fit
                continue
            with pytest.raises(TypeError):
                value.__class__ = cls


@pytest.mark.parametrize("name", ["MPSNNForwardLoss", "MPSNNLossGradient"])
def test_a_call_of_a_kernel_that_was_replaced_is_the_one_that_is_made(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = getattr(ml, name)
    derived = type("Derived", (cls,), {})
    own = cls.__call__
    descriptor = ml.MPSCNNLossDescriptor("huber")
    plain, other = cls(DEVICE, descriptor), derived(DEVICE, descriptor)

    def replaced(self: Any, *args: Any, **named: Any) -> Any:
        return "replaced", args, named, own(self, *args, **named)

    def check_own(one: Any) -> None:
        assert (one(ONES, labels=ONES) == 0).all()
        assert (one(ONES, ONES) == 0).all()
        with pytest.raises(TypeError, match="labels"):
            one(ONES)

    for _ in range(2):
        check_own(plain)
        check_own(other)
        with monkeypatch.context() as patch:
            patch.setattr(derived, "__call__", replaced)
            check_own(plain)
            word, args, named, result = other(ONES, labels=ONES)
            assert (word, len(args), list(named)) == ("replaced", 1, ["labels"])
            assert (result == 0).all()
        with monkeypatch.context() as patch:
            patch.setattr(cls, "__call__", replaced)
            for one in (plain, other):
                assert one(ONES, labels=ONES, out=None)[0] == "replaced"
                assert one(ONES, ONES)[1:3] == ((ONES, ONES), {})


@pytest.mark.parametrize("power", [10, 64, 5000])
def test_an_index_of_any_size_is_an_index_error(power: int) -> None:
    batch = ml.MPSImageBatch.from_array(DEVICE, ONES)
    for index in (2**power, -(2**power), 10**power):
        with pytest.raises(IndexError, match="out of range for 2 images"):
            batch[index]
