"""The benchmarks run and have the structure they promise. No time is asserted."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mpsnn_loss as ml
import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=600
    )


def bench(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("-m", "mpsnn_loss", "bench", "--quick", *arguments, folder=folder)


def test_bench_prints_a_row_for_every_loss_shape_and_work(tmp_path: Path) -> None:
    result = bench(tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"mpsnn_loss {ml.__version__}, ")
    assert any(line.startswith("np.subtract(y, t, out=g) ") for line in lines)
    for loss_type in ml.MPSCNNLossType:
        rows = [line for line in lines if line.startswith(f"{loss_type.name.lower()} ")]
        assert len(rows) == 6
        for row in rows:
            # A rate is rounded, to 0 where the machine is busy with something else.
            assert all(float(number) >= 0 for number in row.split()[-3:])
    assert list(tmp_path.iterdir()) == []


def test_bench_prints_the_same_as_json_for_the_chosen_losses(tmp_path: Path) -> None:
    result = bench(tmp_path, "--json", "--loss", "huber", "--loss", "log", "--threads", "1")
    assert (result.returncode, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert report["threads"] == 1
    assert report["build"]["version"] == ml.__version__
    assert len(report["call_nanoseconds"]) == 4
    assert all(value > 0 for value in report["call_nanoseconds"].values())
    rows = report["losses"]
    works = {"loss", "gradient", "loss and gradient"}
    found = {(row["loss"], tuple(row["shape"]), row["work"]) for row in rows}
    shapes = ((1, 10), (64, 10))
    assert found == {(loss, s, w) for loss in ("huber", "log") for s in shapes for w in works}
    for row in rows:
        elements = row["shape"][0] * row["shape"][1]
        arrays = 2 if row["work"] == "loss" else 3
        seconds = row["microseconds"] * 1e-6
        assert row["nanoseconds_per_element"] == pytest.approx(seconds * 1e9 / elements)
        assert row["gigabytes_per_second"] == pytest.approx(4e-9 * arrays * elements / seconds)


def test_bench_names_the_losses_when_one_is_unknown(tmp_path: Path) -> None:
    result = bench(tmp_path, "--loss", "hubert")
    assert result.returncode == 2
    assert "--loss: must be one of mean_absolute_error, " in result.stderr
    assert "got 'hubert'" in result.stderr


needs_sources = pytest.mark.skipif(
    not (ROOT / "tests" / "bench").is_dir(), reason="the benchmark is not beside the tests"
)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a quick run against NumPy."""
    pytest.importorskip("matplotlib", reason="the benchmark draws with matplotlib")
    folder = tmp_path_factory.mktemp("bench")
    words = ["--quick", "--shape", "64x10", "--peers", "numpy", "--output", str(folder)]
    threads = [str(n + 1) for n in range(min(2, os.cpu_count() or 1))]
    result = run("-m", "tests.bench", *words, "--threads", *threads, folder=ROOT)
    assert result.returncode == 0, result.stderr
    return folder


def records(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "results.json").read_text())
    return found


@needs_sources
def test_the_benchmark_accepts_every_result_of_every_candidate(measured: Path) -> None:
    """Each is compared with the reference before it is timed."""
    wrong = [
        record for record in records(measured) if "candidate" in record and "skipped" in record
    ]
    assert wrong == []


@needs_sources
def test_the_benchmark_times_each_loss_both_ways_in_both_destinations(measured: Path) -> None:
    timed = [record for record in records(measured) if record.get("seconds", 0) > 0]
    for name in ("mpsnn_loss", "NumPy"):
        mine = [record for record in timed if record.get("candidate") == name]
        assert len({record["loss"] for record in mine}) == 1 + len(ml.MPSCNNLossType)
        for work in ("gradient", "loss and gradient"):
            for destination in ("out=", "fresh"):
                cells = {
                    (record["threads"], record["loss"], record["shape"], record["data"])
                    for record in mine
                    if (record["work"], record["destination"]) == (work, destination)
                }
                threads = {record["threads"] for record in mine}
                # Softmax, with labels and with indices, and sigmoid have two scales of logits.
                assert len(cells) == len(threads) * (11 + 3)


@needs_sources
def test_the_benchmark_writes_its_tables_and_figure(measured: Path) -> None:
    page = (measured / "performance.md").read_text()
    for title in ("## Targets", "## Calls", "## Speed", "### Gradient, 1 thread"):
        assert f"{title}\n" in page
    lines = page.splitlines()
    assert "| loss | logits | 64x10 |" in lines
    cells = list(csv.DictReader((measured / "performance.csv").read_text().splitlines()))
    for loss_type in ml.MPSCNNLossType:
        name = loss_type.name.lower()
        assert any(line.startswith(f"| {name} |") for line in lines)
        ours = [c for c in cells if (c["loss"], c["candidate"]) == (name, "mpsnn_loss")]
        assert all(float(cell["microseconds"]) > 0 for cell in ours)
        assert {"gradient", "loss and gradient"} <= {cell["work"] for cell in ours}
    assert (measured / "performance.png").read_bytes().startswith(b"\x89PNG")


@needs_sources
def test_the_accuracy_tool_finds_every_bound_kept(tmp_path: Path) -> None:
    words = ["--points", "4096", "--document", str(tmp_path / "page.md")]
    (tmp_path / "page.md").write_text(
        "before\n<!-- accuracy: generated -->\n<!-- end of accuracy -->\nafter\n"
    )
    result = run("-m", "tests.bench.accuracy", *words, folder=ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    page = (tmp_path / "page.md").read_text()
    assert page.startswith("before\n")
    assert page.endswith("after\n")
    rows = list(csv.DictReader((tmp_path / "accuracy.csv").read_text().splitlines()))
    for loss_type in ml.MPSCNNLossType:
        for dtype in ("float32", "float64"):
            what = f"{loss_type.name.lower()}, loss"
            assert any((row["what"], row["dtype"]) == (what, dtype) for row in rows)
