"""Descriptors: defaults, comparison by value, copies, pickles, and the one warning."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import mpsnn_loss as ml
import numpy as np
import pytest

LOSS_DEFAULTS: dict[str, Any] = {
    "loss_type": ml.MPSCNNLossType.HUBER,
    "reduction_type": ml.MPSCNNReductionType.NONE,
    "reduce_across_batch": False,
    "weight": 1.0,
    "label_smoothing": 0.0,
    "number_of_classes": 1,
    "epsilon": 1e-7,
    "delta": 1.0,
}
LOSS_OTHERWISE: dict[str, Any] = {
    "loss_type": ml.MPSCNNLossType.SOFTMAX_CROSS_ENTROPY,
    "reduction_type": ml.MPSCNNReductionType.MEAN,
    "reduce_across_batch": True,
    "number_of_classes": 2**40,
    "weight": -0.1,  # no float32
    "label_smoothing": 0.75,
    "epsilon": 0.25,
    "delta": 1e300,
}
IMAGE_DEFAULTS: dict[str, Any] = {
    "channel_format": "float32",
    "width": 3,
    "height": 4,
    "feature_channels": 5,
}
IMAGE_OTHERWISE: dict[str, Any] = {
    "channel_format": "float16",
    "width": 30,
    "height": 40,
    "feature_channels": 50,
}
SOFTMAX = "softmax_cross_entropy"


def loss_descriptor(**changes: Any) -> ml.MPSCNNLossDescriptor:
    return ml.MPSCNNLossDescriptor(**{"loss_type": "huber"} | changes)


def image_descriptor(**changes: Any) -> ml.MPSImageDescriptor:
    return ml.MPSImageDescriptor(**{"width": 3, "height": 4, "feature_channels": 5} | changes)


KINDS = pytest.mark.parametrize(
    ("make", "defaults", "otherwise"),
    [
        pytest.param(loss_descriptor, LOSS_DEFAULTS, LOSS_OTHERWISE, id="loss"),
        pytest.param(image_descriptor, IMAGE_DEFAULTS, IMAGE_OTHERWISE, id="image"),
    ],
)


@KINDS
def test_defaults_are_apples(make: Any, defaults: dict[str, Any], otherwise: Any) -> None:
    assert {name: getattr(make(), name) for name in defaults} == defaults


@KINDS
def test_every_property_is_returned_exactly_as_it_was_set(
    make: Any, defaults: dict[str, Any], otherwise: dict[str, Any]
) -> None:
    for name, value in otherwise.items():
        by_keyword, by_assignment = make(**{name: value}), make()
        setattr(by_assignment, name, value)
        for descriptor in (by_keyword, by_assignment):
            expected = defaults | {name: value}
            assert {key: getattr(descriptor, key) for key in expected} == expected


@KINDS
def test_descriptors_compare_by_every_value_and_are_unhashable(
    make: Any, defaults: Any, otherwise: dict[str, Any]
) -> None:
    assert make() == make()
    assert make() != "a descriptor"
    for name, value in otherwise.items():
        assert make(**{name: value}) == make(**{name: value})
        assert make(**{name: value}) != make()
    with pytest.raises(TypeError, match="unhashable"):
        hash(make())


def test_a_loss_descriptor_is_no_image_descriptor() -> None:
    assert loss_descriptor() != image_descriptor()


@KINDS
@pytest.mark.parametrize(
    "duplicate",
    [
        copy.copy,
        copy.deepcopy,
        *(lambda d, p=p: pickle.loads(pickle.dumps(d, p)) for p in range(2, 6)),
    ],
    ids=["copy", "deepcopy", "pickle2", "pickle3", "pickle4", "pickle5"],
)
def test_duplicates_are_equal_and_independent(
    duplicate: Any, make: Any, defaults: dict[str, Any], otherwise: dict[str, Any]
) -> None:
    original = make(**otherwise)
    twin = duplicate(original)
    assert type(twin) is type(original)
    assert twin is not original
    assert twin == original
    name, value = next(iter(defaults.items()))
    setattr(twin, name, value)
    assert twin != original
    assert getattr(original, name) == otherwise[name]


@KINDS
def test_repr_is_readable_and_tells_every_value(
    make: Any, defaults: Any, otherwise: dict[str, Any]
) -> None:
    text = repr(make(**otherwise))
    assert type(make()).__name__ in text
    assert "object at 0x" not in text
    for name, value in otherwise.items():
        assert name in text
        spellings = {str(value), repr(value), getattr(value, "name", str(value)).lower()}
        assert any(spelling in text.lower() for spelling in {s.lower() for s in spellings}), name


def test_the_first_two_arguments_are_positional_in_apples_order() -> None:
    assert ml.MPSCNNLossDescriptor("log", "mean") == loss_descriptor(
        loss_type="log", reduction_type="mean"
    )
    assert ml.MPSImageDescriptor(
        "float16", width=3, height=4, feature_channels=5
    ) == image_descriptor(channel_format="float16")


def test_a_kernel_keeps_the_values_of_its_descriptor_at_that_moment(device: ml.Device) -> None:
    descriptor = loss_descriptor(reduction_type="sum", weight=3.0, delta=0.5)
    kernel = ml.MPSNNLossGradient(device, descriptor)
    for name, value in LOSS_OTHERWISE.items():
        setattr(descriptor, name, value)
    assert kernel.loss_type is ml.MPSCNNLossType.HUBER
    assert kernel.reduction_type is ml.MPSCNNReductionType.SUM
    assert (kernel.weight, kernel.delta, kernel.number_of_classes) == (3.0, 0.5, 1)


def test_smoothing_a_softmax_over_one_class_warns(device: ml.Device) -> None:
    with pytest.warns(UserWarning, match="number_of_classes"):
        ml.MPSNNLossGradient(
            device, loss_descriptor(loss_type=SOFTMAX, reduction_type="sum", label_smoothing=0.1)
        )


def test_smoothing_a_softmax_over_one_class_warns_when_set_later_too(device: ml.Device) -> None:
    with pytest.warns(UserWarning, match="number_of_classes"):  # noqa: PT031
        descriptor = loss_descriptor(loss_type=SOFTMAX, reduction_type="sum")
        descriptor.label_smoothing = 0.1
        ml.MPSNNForwardLoss(device, descriptor)


@pytest.mark.parametrize(
    "fine",
    [
        {"loss_type": SOFTMAX, "label_smoothing": 0.1, "number_of_classes": 3},
        {"loss_type": SOFTMAX, "label_smoothing": 0.0},
        {"loss_type": "sigmoid_cross_entropy", "label_smoothing": 0.1},
        {"loss_type": "hinge", "label_smoothing": 0.1},
    ],
    ids=str,
)
def test_nothing_else_warns(device: ml.Device, fine: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ml.MPSNNLossGradient(device, ml.MPSCNNLossDescriptor(**fine))


def test_a_function_smooths_over_the_size_of_the_last_axis_without_a_warning() -> None:
    y, t = np.array([[1.0, 2.0, 3.0]]), np.array([[0.0, 1.0, 0.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        implied = ml.loss(y, t, SOFTMAX, label_smoothing=0.3)
        explicit = ml.loss(y, t, SOFTMAX, label_smoothing=0.3, number_of_classes=3)
    assert implied == explicit
    assert implied != ml.loss(y, t, SOFTMAX, label_smoothing=0.3, number_of_classes=4)
