"""Devices, threads, environment variables and build information (all that needs no queue)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import mpsnn_loss as ml
import numpy as np
import pytest

VARIABLES = ("MPSNN_LOSS_DEVICE", "MPSNN_LOSS_NUM_THREADS", "OMP_NUM_THREADS")


def in_new_process(code: str, before: str = "", **variables: str) -> Any:
    """The `result` of `before`, import and `code` in a new process with only these variables."""
    environment = {name: text for name, text in os.environ.items() if name not in VARIABLES}
    program = f"import json\n{before}\nimport mpsnn_loss as ml\n{code}\nprint(json.dumps(result))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def threads(**variables: str) -> int:
    return in_new_process("result = ml.get_num_threads()", **variables)


def default_device(name: str) -> list[str]:
    code = """
try:
    device = ml.default_device()
    result = [device.kind, device.name]
except ValueError as error:
    result = ["ValueError", str(error)]
"""
    return in_new_process(code, MPSNN_LOSS_DEVICE=name)


@pytest.fixture
def keep_num_threads() -> Iterator[None]:
    before = ml.get_num_threads()
    yield
    ml.set_num_threads(before)


def test_version_is_the_version_of_the_distribution() -> None:
    assert ml.__version__ == metadata.version("mpsnn_loss")


def test_devices_are_a_list_that_ends_with_the_only_cpu_engine() -> None:
    devices = ml.devices()
    assert isinstance(devices, list)
    assert all(isinstance(device, ml.Device) for device in devices)
    assert [device.kind for device in devices].index("cpu") == len(devices) - 1
    assert devices[-1] == ml.cpu_device()
    assert all(device.name for device in devices)
    assert len({device.name for device in devices}) == len(devices)


def test_a_device_equals_itself_however_it_was_reached(device: ml.Device) -> None:
    assert device in ml.devices()
    kernel = ml.MPSNNInitialGradient(device)
    assert kernel.device == device
    assert hash(kernel.device) == hash(device)
    assert ml.MPSImageBatch.from_array(device, np.ones((1, 1), np.float32))[0].device == device


def test_default_device_is_the_best_one() -> None:
    result = in_new_process("result = [d.name == ml.default_device().name for d in ml.devices()]")
    assert result == [True] + [False] * (len(result) - 1)


def test_variable_overrides_the_default_device_by_kind_and_by_name() -> None:
    for device in ml.devices():
        assert default_device(device.kind)[0] == device.kind
        assert default_device(device.name) == [device.kind, device.name]


def test_variable_with_an_unknown_device_is_an_error_that_repeats_it() -> None:
    kind, message = default_device("no such device")
    assert kind == "ValueError"
    assert "MPSNN_LOSS_DEVICE" in message
    assert "no such device" in message


def test_supports_answers_with_a_flag_and_one_sentence(device: ml.Device) -> None:
    descriptor = ml.MPSCNNLossDescriptor("huber", "sum")
    kernel = ml.MPSNNForwardLoss(device, descriptor)
    for what in (descriptor, kernel, "float32", "float16", "float64", np.float32, np.dtype("f2")):
        supported, reason = device.supports(what)
        assert isinstance(supported, bool)
        assert (reason == "") == supported
        assert "\n" not in reason


def test_every_device_supports_float32_and_what_it_made(device: ml.Device) -> None:
    assert device.supports(np.float32) == (True, "")
    assert device.supports(ml.MPSNNInitialGradient(device)) == (True, "")


def test_supports_refuses_a_dtype_without_an_image_format(device: ml.Device) -> None:
    supported, reason = device.supports(np.dtype("int32"))
    assert not supported
    assert "int32" in reason


def test_supports_refuses_a_reduction_that_the_loss_does_not_accept(device: ml.Device) -> None:
    supported, reason = device.supports(ml.MPSCNNLossDescriptor("cosine_distance", "mean"))
    assert not supported
    assert "sum" in reason


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_cpu_engine_supports_every_loss_and_dtype(
    loss_type: ml.MPSCNNLossType, dtype: str
) -> None:
    assert ml.cpu_device().supports(dtype) == (True, "")
    assert ml.cpu_device().supports(ml.MPSCNNLossDescriptor(loss_type, "sum")) == (True, "")


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_number_of_threads_is_what_was_set(count: int, keep_num_threads: None) -> None:
    ml.set_num_threads(count)
    assert ml.get_num_threads() == count
    assert ml.build_info()["threads"] == count


def test_the_default_never_exceeds_the_cpus_of_the_process() -> None:
    available = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    assert 1 <= threads() <= available


def test_the_default_follows_the_affinity_mask() -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no affinity masks")
    first = min(os.sched_getaffinity(0))
    narrow = f"import os; os.sched_setaffinity(0, [{first}])"
    assert in_new_process("result = ml.get_num_threads()", before=narrow) == 1


def test_variables_set_the_number_of_threads_and_ours_comes_first() -> None:
    assert threads(MPSNN_LOSS_NUM_THREADS="1") == 1
    assert threads(OMP_NUM_THREADS="1") == 1
    assert threads(MPSNN_LOSS_NUM_THREADS="1", OMP_NUM_THREADS="2") == 1
    if threads() < 2:
        pytest.skip("one CPU cannot show that MPSNN_LOSS_NUM_THREADS=2 beats OMP_NUM_THREADS=1")
    assert threads(MPSNN_LOSS_NUM_THREADS="2", OMP_NUM_THREADS="1") == 2
    assert threads(OMP_NUM_THREADS="2") == 2


def test_build_info_names_version_compiler_instruction_sets_metal_and_threads() -> None:
    info = ml.build_info()
    assert isinstance(info, dict)
    assert info["version"] == ml.__version__
    assert info["threads"] == ml.get_num_threads()
    assert info["compiler"]
    assert info["metal"] in (True, False, "yes", "no")
    assert sum("instruction" in key for key in info) >= 1
    assert json.loads(json.dumps(info)) == info  # plain values, fit for a bug report


def test_build_info_agrees_with_the_devices_about_metal() -> None:
    if any(device.kind == "metal" for device in ml.devices()):
        assert ml.build_info()["metal"] in (True, "yes")


def test_device_error_is_a_runtime_error() -> None:
    assert issubclass(ml.DeviceError, RuntimeError)
    assert ml.DeviceError is not RuntimeError
