"""Images that several command buffers read and write: what may be read, and what a buffer may use.

The rules stand in src/objects/image_uses.hpp; the first test replays them in Python.
"""

from __future__ import annotations

import itertools
from typing import Any

import mpsnn_loss as ml
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

LONG = 60.0
IMAGES = 4


def blank(device: ml.Device, count: int = IMAGES) -> ml.MPSImageBatch:
    return ml.MPSImageBatch.from_array(device, np.zeros((count, 1, 1, 1), np.float32))


def write(buffer: ml.CommandBuffer, images: Any, value: float) -> Any:
    """Encodes the writing of `value` into the images."""
    kernel = ml.MPSNNLossGradient(
        buffer.device, ml.MPSCNNLossDescriptor("mean_absolute_error", weight=value)
    )
    one = np.ones((len(images), 1), np.float32)
    return kernel.encode_batch(buffer, one, 2 * one, one, destination_gradients=images)


def discard(buffer: ml.CommandBuffer) -> None:
    with pytest.raises(KeyError), buffer:
        raise KeyError


def value(image: ml.MPSImage) -> float:
    return float(np.frombuffer(image.read_bytes(), np.float32)[0])


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("write"), st.integers(0, 2), st.sets(st.integers(0, IMAGES - 1), min_size=1)
        ),
        st.tuples(st.sampled_from(["commit", "discard"]), st.integers(0, 2)),
    ),
    max_size=12,
)


@settings(max_examples=200, deadline=None)
@given(operations=OPERATIONS)
def test_an_image_is_readable_when_all_its_writers_ended_and_has_the_last_ones_values(
    operations: list[tuple[Any, ...]],
) -> None:
    device = ml.default_device()
    queue = device.make_command_queue()
    batch = blank(device)
    buffers = [queue.make_command_buffer() for _ in range(3)]
    writes: list[dict[int, float]] = [{}, {}, {}]  # of the open buffers, by image
    discarded: list[set[int]] = [
        set() for _ in range(IMAGES)
    ]  # writers that were dropped, by image
    values: dict[int, float] = {}
    numbers = itertools.count(1)
    for name, i, *rest in operations:
        if name == "write":
            number = next(numbers)
            write(buffers[i], [batch[image] for image in sorted(rest[0])], number)
            writes[i] |= dict.fromkeys(rest[0], number)
        else:
            if name == "commit":
                buffers[i].commit()
                buffers[i].wait_until_completed(timeout=LONG)
                values |= writes[i]
            else:
                discard(buffers[i])
                for image in writes[i]:
                    discarded[image].add(i)
            buffers[i], writes[i] = queue.make_command_buffer(), {}
        for image in range(IMAGES):
            pending = any(image in open_writes for open_writes in writes)
            empty = bool(discarded[image]) and image not in values
            if pending or empty:
                with pytest.raises(RuntimeError, match="complete" if pending else "discarded"):
                    batch[image].read_bytes()
            else:
                assert value(batch[image]) == values.get(image, 0)


def test_a_whole_batch_is_readable_only_when_every_part_is(device: ml.Device) -> None:
    queue, batch = device.make_command_queue(), blank(device)
    first, second = queue.make_command_buffer(), queue.make_command_buffer()
    write(first, [batch[0], batch[1]], 1)
    write(second, [batch[3], batch[2]], 2)
    second.commit()
    second.wait_until_completed(timeout=LONG)
    with pytest.raises(RuntimeError):
        batch.to_array()
    first.commit()
    first.wait_until_completed(timeout=LONG)
    assert batch.to_array().ravel().tolist() == [1, 1, 2, 2]


@pytest.mark.parametrize("fate", ["never committed", "discarded", "dropped", "behind"])
def test_a_buffer_fails_when_what_should_have_written_its_input_did_not(
    device: ml.Device, fate: str
) -> None:
    queue, batch = device.make_command_queue(), blank(device)
    writer, reader = queue.make_command_buffer(), queue.make_command_buffer()
    write(writer, batch, 1)
    ones = ml.MPSNNForwardLoss(device, ml.MPSCNNLossDescriptor("mean_absolute_error"))
    result = ones.encode_batch(reader, batch, np.zeros((IMAGES, 1, 1, 1), np.float32))
    if fate == "discarded":
        discard(writer)
    if fate == "dropped":
        del writer
    if fate == "behind":
        reader.enqueue()
        writer.commit()
    reader.commit()
    with pytest.raises(ml.DeviceError, match="should have written an input"):
        reader.wait_until_completed(timeout=LONG)
    assert reader.status is ml.CommandBufferStatus.ERROR
    assert isinstance(reader.error, ml.DeviceError)
    with pytest.raises(ml.DeviceError):
        result.to_array()
    if fate in ("never committed", "behind"):  # the writer itself is none the worse
        if fate == "never committed":
            writer.commit()
        writer.wait_until_completed(timeout=LONG)
        assert (batch.to_array() == 1).all()


def test_a_failure_is_passed_on_along_a_chain(device: ml.Device) -> None:
    queue = device.make_command_queue()
    forward = ml.MPSNNForwardLoss(device, ml.MPSCNNLossDescriptor("mean_absolute_error"))
    labels = np.zeros((IMAGES, 1, 1, 1), np.float32)
    images: Any = blank(device)
    buffers = [queue.make_command_buffer() for _ in range(4)]
    for buffer in buffers:
        images = forward.encode_batch(buffer, images, labels)
    discard(buffers[0])
    for buffer in buffers[1:]:
        buffer.commit()
    for buffer in buffers[1:]:
        with pytest.raises(ml.DeviceError):
            buffer.wait_until_completed(timeout=LONG)


@pytest.mark.parametrize(("before", "after"), [("r", "w"), ("w", "r"), ("w", "w"), ("r", "r")])
def test_work_on_one_image_from_two_queues_is_refused_until_the_first_has_ended(
    device: ml.Device, before: str, after: str
) -> None:
    batch = blank(device)
    forward = ml.MPSNNForwardLoss(device, ml.MPSCNNLossDescriptor("mean_absolute_error"))
    labels = np.zeros((IMAGES, 1, 1, 1), np.float32)

    def use(buffer: ml.CommandBuffer, how: str) -> Any:
        if how == "w":
            return write(buffer, batch, 1)
        return forward.encode_batch(buffer, batch, labels)

    first = device.make_command_queue().make_command_buffer()
    second = device.make_command_queue().make_command_buffer()
    use(first, before)
    if before + after != "rr":
        with pytest.raises(
            RuntimeError, match=r"^(source_images|destination_gradients) must .*queue"
        ):
            use(second, after)
        first.commit()
        first.wait_until_completed(timeout=LONG)
    use(second, after)
    second.commit()
    second.wait_until_completed(timeout=LONG)


def test_a_refused_encode_leaves_no_trace_on_its_images(device: ml.Device) -> None:
    batch, other = blank(device), blank(device)
    first = device.make_command_queue().make_command_buffer()
    second = device.make_command_queue().make_command_buffer()
    write(first, other, 1)
    kernel = ml.MPSNNLossGradient(device, ml.MPSCNNLossDescriptor("mean_absolute_error"))
    one = np.ones((IMAGES, 1), np.float32)
    with pytest.raises(RuntimeError, match="queue"):
        kernel.encode_batch(second, one, batch, one, destination_gradients=other)
    first.commit()
    first.wait_until_completed(timeout=LONG)
    write(device.make_command_queue().make_command_buffer(), batch, 2)  # nobody reads it
    assert (other.to_array() == 1).all()


def test_a_buffer_may_read_what_it_wrote_itself_and_write_it_again(device: ml.Device) -> None:
    batch = blank(device)
    forward = ml.MPSNNForwardLoss(device, ml.MPSCNNLossDescriptor("mean_absolute_error"))
    labels = np.zeros((IMAGES, 1, 1, 1), np.float32)
    with device.make_command_queue().make_command_buffer() as buffer:
        write(buffer, batch, 3)
        early = forward.encode_batch(buffer, batch, labels)
        write(buffer, batch, 4)
        late = forward.encode_batch(buffer, batch, labels)
    assert (early.to_array() == 3).all()
    assert (late.to_array() == 4).all()
