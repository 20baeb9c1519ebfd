"""What errors and help say, where they said something else than what was wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpsnn_loss as ml
import numpy as np
import pytest
from operands import MSE, SOFTMAX, Y, arguments, each_function, in_a_fresh_interpreter, operands_of


def words(call: Callable[[], Any], error: type[BaseException] = ValueError) -> str:
    with pytest.raises(error) as caught:
        pytest.fail(f"taken: {call()!r}")
    assert type(caught.value) is error
    return str(caught.value)


@each_function
def test_float_class_labels_are_told_that_class_indices_are_integers(function: Any) -> None:
    for loss_type in (SOFTMAX, "categorical_cross_entropy"):
        with pytest.raises((TypeError, ValueError), match=r"labels.*integer"):
            function(Y, np.array([0.0, 1.0]), loss_type)


@each_function
def test_a_mask_with_a_channel_axis_is_not_blamed_on_ignore_index(function: Any) -> None:
    y = np.zeros((2, 3, 3, 4), np.float32)
    for labels in (np.zeros((2, 3, 3, 1), int), np.zeros((2, 3, 3, 1), np.uint8)):
        text = words(lambda t=labels: function(y, t, SOFTMAX, ignore_index=255))
        assert text.startswith("labels")
        assert "2, 3, 3)" in text.replace("]", ")")


@each_function
def test_integer_labels_for_a_loss_without_class_indices_say_so(function: Any) -> None:
    text = words(lambda: function(Y, np.array([0, 1]), MSE))
    assert text.startswith("labels")
    assert "class indices" in text


def test_a_descriptor_calls_its_argument_reduction_type() -> None:
    for reduction in ("average", 17):
        text = words(lambda r=reduction: ml.MPSCNNLossDescriptor("huber", r))
        assert text.startswith("reduction_type ")
    text = words(lambda: ml.MPSCNNLossDescriptor("cosine_distance", "mean").__class__(
        "huber", None), TypeError)  # fmt: skip
    assert text.startswith("reduction_type ")
    device = ml.cpu_device()
    descriptor = ml.MPSCNNLossDescriptor("cosine_distance", "mean")
    assert "reduction_type" in words(lambda: ml.MPSNNForwardLoss(device, descriptor))


@each_function
def test_help_says_that_the_labels_of_hinge_are_0_or_1(function: Any) -> None:
    text = " ".join((function.__doc__ or "").split())
    assert "hinge" in text
    assert "0 or 1" in text


DEVICE_PROGRAM = """
    y = np.zeros({shape}, np.float32)
    functions = (ml.loss, ml.loss_gradient, ml.loss_and_gradient)
    for call in (ml.default_device, *(lambda f=f: f(y, y, "huber") for f in functions)):
        try:
            call()
            print("taken")
        except Exception as error:
            print(type(error).__name__, error)
"""


@pytest.mark.parametrize("shape", ["(1, 1)", "(2, 3)", "(1 << 11, 1 << 10)", "(0, 3)"])
def test_a_device_of_no_such_name_raises_at_every_size(shape: str) -> None:
    program = DEVICE_PROGRAM.format(shape=shape)
    lines = in_a_fresh_interpreter(program, MPSNN_LOSS_DEVICE="bogus").splitlines()
    assert len(lines) == 4
    for line in lines:
        assert line.startswith("ValueError")
        assert "MPSNN_LOSS_DEVICE" in line
        assert "'bogus'" in line
    for name in ("cpu", "CPU", ml.cpu_device().name):
        lines = in_a_fresh_interpreter(program, MPSNN_LOSS_DEVICE=name).splitlines()
        assert lines == ["taken"] * 4 or name == "CPU"


@pytest.mark.skipif(any(d.kind == "metal" for d in ml.devices()), reason="there is a Metal device")
def test_metal_without_metal_says_that_there_is_none_and_why() -> None:
    program = DEVICE_PROGRAM.format(shape="(2, 3)")
    for line in in_a_fresh_interpreter(program, MPSNN_LOSS_DEVICE="metal").splitlines():
        assert "no Metal device" in line
        assert "must be 'cpu', 'metal'" not in line


SURROGATE = "a\udc80"


@pytest.mark.parametrize("name", ["loss_type", "reduction", "wrt", "device"])
def test_surrogates_in_a_word_are_an_unknown_word(name: str) -> None:
    given = arguments(ml.loss_gradient) | {name: SURROGATE}
    with pytest.raises((ValueError, TypeError), match=name) as caught:
        ml.loss_gradient(**given)
    assert "cast" not in str(caught.value)


def test_surrogates_in_other_words() -> None:
    device = ml.cpu_device()
    kernel = ml.MPSNNForwardLoss(device, ml.MPSCNNLossDescriptor("huber", "sum"))
    y = Y.reshape(2, 1, 1, 3)
    buffer = device.make_command_queue().make_command_buffer()
    calls: dict[str, Callable[[], Any]] = {
        "allocator": lambda: kernel.encode_batch(buffer, y, y, allocator=SURROGATE),
        "channel_format": lambda: ml.MPSImageDescriptor(SURROGATE, width=1, height=1,
                                                        feature_channels=1),
        "label": lambda: setattr(kernel, "label", SURROGATE),
        "options": lambda: setattr(kernel, "options", SURROGATE),
        "destination_image_allocator": lambda: setattr(
            kernel, "destination_image_allocator", SURROGATE),
        "loss_type": lambda: ml.MPSCNNLossDescriptor(SURROGATE),
    }  # fmt: skip
    for name, call in calls.items():
        assert name in words(call)
    with pytest.raises((ValueError, TypeError)) as caught:
        device.supports(SURROGATE)
    assert "cast" not in str(caught.value)


def test_an_index_beyond_64_bits_is_out_of_range() -> None:
    batch = ml.MPSImageBatch.from_array(ml.cpu_device(), Y.reshape(2, 1, 1, 3))
    for index in (10**5000, -(10**5000), 2**64, -(2**63) - 1, 2, -3):
        assert "index" in words(lambda i=index: batch[i], IndexError)


@each_function
def test_a_released_memoryview_is_called_released(function: Any) -> None:
    for name in operands_of(function):
        view = memoryview(Y.copy())
        view.release()
        with pytest.raises((ValueError, TypeError), match=name) as caught:
            function(**arguments(function) | {name: view})
        assert "releas" in str(caught.value)


COMPLEX = [1j, 1 + 0j, np.complex64(1), np.array(1 + 2j)]


@pytest.mark.filterwarnings("ignore::numpy.exceptions.ComplexWarning")
@pytest.mark.parametrize(
    "name", ["weight", "label_smoothing", "epsilon", "delta", "source_gradient"]
)
def test_a_complex_number_keeps_its_imaginary_part_or_is_refused(name: str) -> None:
    descriptor = ml.MPSCNNLossDescriptor("huber")
    for value in COMPLEX:
        assert name in words(lambda v=value: ml.loss_gradient(Y, Y, MSE, **{name: v}), TypeError)
        if name != "source_gradient":
            assert name in words(lambda v=value: setattr(descriptor, name, v), TypeError)


@pytest.mark.parametrize(
    "name", ["weight", "label_smoothing", "epsilon", "delta", "source_gradient"]
)
def test_text_is_no_number(name: str) -> None:
    for value in ("3", np.array("3"), np.array(b"3"), np.str_("3"), b"3", np.array("3", object),
                  np.datetime64(3, "s"), np.array(3, "m8[s]")):  # fmt: skip
        assert name in words(lambda v=value: ml.loss_gradient(Y, Y, MSE, **{name: v}), TypeError)


def test_a_negative_label_and_an_infinite_logit_cost_infinitely_much() -> None:
    for y, t, value in ((np.inf, -1.0, np.inf), (np.inf, -65504.0, np.inf), (-np.inf, 2.0, np.inf),
                        (np.inf, 0.0, np.inf), (-np.inf, 0.0, 0.0),
                        ):  # fmt: skip
        for dtype in (np.float16, np.float32, np.float64):
            loss = ml.loss(np.array([[y]], dtype), np.array([[t]], dtype), "sigmoid_cross_entropy")
            assert loss == value
