"""Enumerations: Apple's raw values, and every spelling accepted wherever one is taken."""

from __future__ import annotations

import copy
import pickle
from enum import Enum, IntEnum
from typing import Any

import mpsnn_loss as ml
import numpy as np
import pytest

RAW_VALUES: dict[type[IntEnum], dict[str, int]] = {
    ml.MPSCNNLossType: {
        "MEAN_ABSOLUTE_ERROR": 0,
        "MEAN_SQUARED_ERROR": 1,
        "SOFTMAX_CROSS_ENTROPY": 2,
        "SIGMOID_CROSS_ENTROPY": 3,
        "CATEGORICAL_CROSS_ENTROPY": 4,
        "HINGE": 5,
        "HUBER": 6,
        "COSINE_DISTANCE": 7,
        "LOG": 8,
        "KULLBACK_LEIBLER_DIVERGENCE": 9,
    },
    ml.MPSCNNReductionType: {"NONE": 0, "SUM": 1, "MEAN": 2, "SUM_BY_NON_ZERO_WEIGHTS": 3},
    ml.CommandBufferStatus: {
        "NOT_ENQUEUED": 0,
        "ENQUEUED": 1,
        "COMMITTED": 2,
        "SCHEDULED": 3,
        "COMPLETED": 4,
        "ERROR": 5,
    },
}
EVERY_ENUM = pytest.mark.parametrize("enum", RAW_VALUES, ids=lambda enum: enum.__name__)


def spellings(member: Any) -> list[Any]:
    return [member, member.name.lower(), int(member)]


def public(kernel: Any, name: str) -> Any:
    value = getattr(kernel, name)
    assert isinstance(value, Enum)
    return value


@EVERY_ENUM
def test_members_and_raw_values_are_apples_without_the_count(enum: type[IntEnum]) -> None:
    assert {member.name: int(member) for member in enum} == RAW_VALUES[enum]
    assert issubclass(enum, IntEnum)


@EVERY_ENUM
def test_members_are_singletons_that_survive_copies_and_pickles(enum: type[IntEnum]) -> None:
    for member in enum:
        assert enum(int(member)) is member
        assert enum[member.name] is member
        assert copy.deepcopy(member) is member
        assert pickle.loads(pickle.dumps(member)) is member


def test_kernel_enumerations_have_apples_raw_values() -> None:
    assert (int(ml.MPSImageEdgeMode.ZERO), int(ml.MPSImageEdgeMode.CLAMP)) == (0, 1)
    assert [int(getattr(ml.MPSKernelOptions, name)) for name in (
        "NONE", "SKIP_API_VALIDATION", "ALLOW_REDUCED_PRECISION", "DISABLE_INTERNAL_TILING",
        "INSERT_DEBUG_GROUPS", "VERBOSE")] == [0, 1, 2, 4, 8, 16]  # fmt: skip


def test_descriptors_and_kernels_accept_every_spelling_of_a_loss(
    device: ml.Device, loss_type: ml.MPSCNNLossType
) -> None:
    for spelling in spellings(loss_type):
        descriptor = ml.MPSCNNLossDescriptor(spelling, "sum")
        assert public(descriptor, "loss_type") is loss_type
        descriptor.loss_type = "huber"
        descriptor.loss_type = spelling
        assert public(descriptor, "loss_type") is loss_type
        for kernel in (ml.MPSNNLossGradient, ml.MPSNNForwardLoss):
            assert public(kernel(device, descriptor), "loss_type") is loss_type


@pytest.mark.parametrize("reduction", ml.MPSCNNReductionType, ids=lambda r: r.name.lower())
def test_descriptors_and_kernels_accept_every_spelling_of_a_reduction(
    device: ml.Device, reduction: ml.MPSCNNReductionType
) -> None:
    for spelling in spellings(reduction):
        descriptor = ml.MPSCNNLossDescriptor("huber", spelling)
        assert public(descriptor, "reduction_type") is reduction
        descriptor.reduction_type = "sum"
        descriptor.reduction_type = spelling
        assert public(ml.MPSNNLossGradient(device, descriptor), "reduction_type") is reduction


def test_functions_accept_every_spelling_of_a_loss(loss_type: ml.MPSCNNLossType) -> None:
    y, t = np.array([[0.25, 0.5], [0.75, 0.125]]), np.array([[0.0, 1.0], [1.0, 0.0]])
    for function in (ml.loss, ml.loss_gradient, ml.loss_and_gradient):
        results = [function(y, t, spelling, reduction="sum") for spelling in spellings(loss_type)]
        assert len({pickle.dumps(result) for result in results}) == 1


def test_functions_accept_every_spelling_of_a_reduction() -> None:
    y, t, v = np.array([[0.0, 3.0]]), np.array([[1.0, 1.0]]), np.array([[0.0, 1.0]])
    expected = {"none": [0, 4], "sum": 4, "mean": 2, "sum_by_non_zero_weights": 4}
    for reduction in ml.MPSCNNReductionType:
        for spelling in spellings(reduction):
            result = ml.loss(y, t, "mean_squared_error", reduction=spelling, weights=v)
            assert np.array_equal(np.ravel(result), np.ravel(expected[reduction.name.lower()]))


def test_kernel_properties_accept_every_spelling(device: ml.Device) -> None:
    gradient = ml.MPSNNLossGradient(device, ml.MPSCNNLossDescriptor("huber"))
    forward = ml.MPSNNForwardLoss(device, ml.MPSCNNLossDescriptor("huber"))
    for kernel, name in (
        (gradient, "primary_edge_mode"),
        (gradient, "secondary_edge_mode"),
        (forward, "edge_mode"),
    ):
        for mode in (ml.MPSImageEdgeMode.CLAMP, ml.MPSImageEdgeMode.ZERO):
            for spelling in spellings(mode):
                setattr(kernel, name, spelling)
                assert public(kernel, name) == mode
    options = ml.MPSKernelOptions
    for spelling in (options.VERBOSE, "verbose", 16):
        gradient.options = spelling
        assert public(gradient, "options") == options.VERBOSE
        gradient.options = options.NONE


def test_options_combine_as_bits(device: ml.Device) -> None:
    kernel = ml.MPSNNInitialGradient(device)
    both = ml.MPSKernelOptions.VERBOSE | ml.MPSKernelOptions.ALLOW_REDUCED_PRECISION
    kernel.options = both
    assert kernel.options == both
    assert int(kernel.options) == 18
    kernel.options = 18
    assert kernel.options == both
