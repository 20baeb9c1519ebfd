"""The smoke test of a wheel: if only one file is run, this one. Needs only NumPy and pytest."""

from __future__ import annotations

from importlib import metadata

import mpsnn_loss as ml
import numpy as np

PREDICTIONS = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
LABELS = np.array([[0.0, 2.0], [5.0, 1.0]], np.float32)
# (y - t)² is 1 0 4 9 and 2(y - t) is 2 0 -4 6; the mean divides both by four.
MEAN_LOSS = 3.5
MEAN_GRADIENT = [[0.5, 0.0], [-1.0, 1.5]]


def test_version_is_that_of_the_installed_distribution() -> None:
    assert ml.__version__ == metadata.version("mpsnn_loss")


def test_build_info_describes_this_build() -> None:
    info = ml.build_info()
    assert info["version"] == ml.__version__
    assert info["threads"] >= 1


def test_the_cpu_engine_is_the_last_device() -> None:
    assert ml.devices()[-1].kind == "cpu"


def test_loss_and_gradient_equal_hand_computed_values() -> None:
    loss, gradient = ml.loss_and_gradient(PREDICTIONS, LABELS, "mean_squared_error")
    assert loss == MEAN_LOSS
    assert gradient.tolist() == MEAN_GRADIENT


def test_a_kernel_encodes_commits_and_waits_to_the_same_values() -> None:
    device = ml.default_device()
    descriptor = ml.MPSCNNLossDescriptor("mean_squared_error", "mean", reduce_across_batch=True)
    kernel = ml.MPSNNLossGradient(device, descriptor)
    ones = np.ones((2, 1), np.float32)
    with device.make_command_queue().make_command_buffer() as buffer:
        gradients = kernel.encode_batch(buffer, ones, PREDICTIONS, LABELS)
    assert gradients.to_array().reshape(2, 2).tolist() == MEAN_GRADIENT
