"""python -m mpsnn_loss: what it prints, writes and needs."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import mpsnn_loss as ml
import numpy as np
import pytest

ACCURACY = 0.95
PNG = b"\x89PNG\r\n\x1a\n"


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=600
    )


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(["-m", "mpsnn_loss", *arguments], folder)


def test_info_prints_every_device_and_fact_in_aligned_columns(tmp_path: Path) -> None:
    result = command(tmp_path, "info")
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    width = 2 + max(len(key) for key in ml.build_info())
    for index, device in enumerate(ml.devices()):
        start = f"{f'device {index}':<{width}}{device.name} ({device.kind}): "
        assert [line for line in lines if line.startswith(start)]
    for key, value in ml.build_info().items():
        shown = " ".join(value) if isinstance(value, list) else str(value)
        assert f"{key:<{width}}{shown}" in lines
    assert len(lines) == len(ml.devices()) + len(ml.build_info())


def test_info_says_what_each_device_stores(tmp_path: Path) -> None:
    last = command(tmp_path, "info").stdout.splitlines()[len(ml.devices()) - 1]
    assert "CPU (cpu): float16 float32 float64" in last


EPOCH = re.compile(
    r"^epoch +(\d+)/\d+ \[(#+)-*\] loss (\S+)  accuracy (\S+)  held out (\S+)$", re.MULTILINE
)


class Runs(NamedTuple):
    """The demo with its default settings, and with three epochs and another file name."""

    default: subprocess.CompletedProcess[str]
    short: subprocess.CompletedProcess[str]
    figures: tuple[Path, Path]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    pytest.importorskip("sklearn", reason="the demo needs scikit-learn")
    pytest.importorskip("matplotlib", reason="the demo needs matplotlib")
    folder = tmp_path_factory.mktemp("demo")
    return Runs(
        command(folder, "demo"),
        command(folder, "demo", "--epochs", "3", "--output", "figure"),
        (folder / "demo.png", folder / "figure"),
    )


def test_demo_shows_the_device_and_the_gradient_check(demo: Runs) -> None:
    device = ml.default_device()
    for result in (demo.default, demo.short):
        assert (result.returncode, result.stderr) == (0, "")
        assert f"{device.name} ({device.kind})" in result.stdout
        assert "central finite differences of MPSNNForwardLoss" in result.stdout
        difference = re.search(r"largest relative difference (\S+) of 640 numbers", result.stdout)
        assert difference
        assert float(difference[1]) < (1e-6 if device.supports("float64")[0] else 2e-2)


def test_demo_reaches_its_accuracy_with_its_default_settings(demo: Runs) -> None:
    reached = re.search(r"^held-out accuracy (\S+), figure", demo.default.stdout, re.MULTILINE)
    assert reached
    assert float(reached[1]) >= ACCURACY


def test_demo_shows_its_progress_without_a_terminal(demo: Runs) -> None:
    epochs = EPOCH.findall(demo.short.stdout)
    assert [epoch for epoch, *_ in epochs] == ["1", "2", "3"]
    assert [len(bar) for _, bar, *_ in epochs] == [8, 16, 24]
    losses = [float(loss) for _, _, loss, _, _ in epochs]
    assert losses == sorted(losses, reverse=True)
    assert "\r" not in demo.short.stdout  # that is for terminals


def test_demo_learns_the_same_in_every_run(demo: Runs) -> None:
    first, second = ([numbers for _, _, *numbers in EPOCH.findall(run.stdout)]
                     for run in (demo.default, demo.short))  # fmt: skip
    assert first[:3] == second


def test_demo_writes_a_png(demo: Runs) -> None:
    for run, figure in zip((demo.default, demo.short), demo.figures, strict=True):
        assert run.stdout.endswith(f"figure in {figure.name}\n")
        data = figure.read_bytes()
        assert data.startswith(PNG)
        assert min(struct.unpack(">II", data[16:24])) >= 600  # width and height


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_gradient_check_notices_a_wrong_gradient(device: ml.Device, dtype: str) -> None:
    supported, reason = device.supports(dtype)
    if not supported:
        pytest.skip(reason)
    from mpsnn_loss import _demo

    rng = np.random.default_rng(1)
    logits = rng.normal(0, 0.1, (8, _demo.CLASSES)).astype(dtype)
    labels = np.eye(_demo.CLASSES, dtype=dtype)[rng.integers(_demo.CLASSES, size=8)]
    step, allowed = _demo.DIFFERENCES[dtype]
    kernels = _demo.LossKernels(device)
    assert _demo.largest_difference(kernels, logits, labels, step) <= allowed
    kernels.forward.weight = 1.1  # which its states carry to the gradient
    assert _demo.largest_difference(kernels, logits, labels, step) <= allowed
    kernels.loss = lambda *batch: 1.1 * type(kernels).loss(kernels, *batch)
    assert _demo.largest_difference(kernels, logits, labels, step) > allowed


@pytest.mark.parametrize(
    ("package", "module"), [("scikit-learn", "sklearn"), ("matplotlib", "matplotlib")]
)
def test_demo_names_a_missing_package_in_one_line(
    tmp_path: Path, package: str, module: str
) -> None:
    if module == "matplotlib":
        pytest.importorskip("sklearn", reason="the demo asks for scikit-learn first")
    code = f"""import runpy, sys
sys.modules[{module!r}] = None
sys.argv = ["mpsnn_loss", "demo"]
runpy.run_module("mpsnn_loss", run_name="__main__")"""
    result = run(["-c", code], tmp_path)
    assert result.returncode == 1
    assert result.stderr == f'the demo needs {package}: pip install "mpsnn-loss[demo]"\n'
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "required: command"),
        (["nothing"], "invalid choice: 'nothing'"),
        (["demo", "--epochs", "0"], "--epochs: must be at least 1, got 0"),
        (["demo", "--epochs", "many"], "--epochs: invalid positive value: 'many'"),
        (["demo", "--output", "no/a.png"], "--output: must be a file in an existing folder"),
        (["demo", "--output", "."], "--output: must be a file in an existing folder, got '.'"),
    ],
)
def test_a_mistaken_command_line_is_refused(
    tmp_path: Path, arguments: list[str], words: str
) -> None:
    result = command(tmp_path, *arguments)
    assert result.returncode == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_importing_the_package_imports_nothing_of_the_command_line(tmp_path: Path) -> None:
    code = """import sys, numpy
before = set(sys.modules)
import mpsnn_loss
print(*sorted({name.split(".")[0] for name in set(sys.modules) - before}))"""
    result = run(["-c", code], tmp_path)
    assert result.returncode == 0
    loaded = set(result.stdout.split())
    assert "mpsnn_loss" in loaded
    assert not loaded & {"sklearn", "matplotlib", "argparse"}
