"""The conformance kit: cases, readings of the header, child processes and the report."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import mpsnn_loss as ml
import numpy as np
import pytest
from mpsnn_loss._conformance import KIT_VERSION, environment, readings, report, workers
from mpsnn_loss._conformance import objective_c as objc
from mpsnn_loss._conformance.cases import CASES
from mpsnn_loss._conformance.inputs import SHAPE, everything_on, plain
from mpsnn_loss._conformance.judging import Expectation, expected_refusal, fact
from mpsnn_loss._conformance.problems import Problem

# Of the names and problems of all cases. A version of the kit never changes: a change of the cases
# raises KIT_VERSION and adds a line.
DIGESTS = {1: "c6afe6f7d114bc035caa4e5f8ac6334f0400b5cecc0135ef91014b1918b5ff64"}
PROBLEMS = {name: case.problem for name, case in CASES.items() if case.problem is not None}
RESULTS = ("loss", "predictions", "labels")


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mpsnn_loss", "conformance", *arguments],
        capture_output=True,
        text=True,
        timeout=1200,
    )


# --- The cases ---


def test_every_case_agrees(device: ml.Device, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    result = command("--device", device.name, "--json", str(file), "--strict")
    assert result.returncode == 0, result.stdout + result.stderr
    whole = json.loads(file.read_text())
    assert whole["kit"] == KIT_VERSION
    assert whole["environment"]["device"]["name"] == device.name
    records = whole["runs"][0]["cases"]
    assert [record["case"] for record in records] == list(CASES)
    for record in records:
        assert {each["verdict"] for each in record["results"]} <= {"agrees", "recorded", "absent"}
    lines = result.stdout.splitlines()
    assert lines[-1] == f"all of it in {file}"
    assert f"kit {KIT_VERSION} on {device.name} ({device.kind}): {len(CASES)} cases: " in lines[-3]
    assert "0 differ, 0 refused, 0 died" in lines[-3]
    agreeing = [record for record in records if report.verdict(record) == "agrees"]
    assert len([line for line in lines if line.startswith("agrees ")]) == len(agreeing)
    assert len(agreeing) >= len(PROBLEMS) - len([name for name in PROBLEMS if "direct/" in name])


def test_every_loss_and_reduction_has_its_cells() -> None:
    expected = set()
    for loss_type in ml.MPSCNNLossType:
        for reduction in ml.MPSCNNReductionType:
            descriptor = (loss_type, reduction)
            try:
                ml.MPSNNLossGradient(ml.cpu_device(), ml.MPSCNNLossDescriptor(*descriptor))
            except ValueError:
                continue
            name = f"cell/{loss_type.name.lower()}/{reduction.name.lower()}"
            expected |= {name, f"{name}/across the batch"}
    assert {name for name in CASES if name.startswith("cell/")} == expected


def test_the_rows_of_the_table_of_ambiguities_have_their_cases() -> None:
    points = {name.split("/")[1] for name in CASES if name.startswith("header/")}
    assert points == {
        "Huber",
        "hinge",
        "Kullback-Leibler",
        "softmax",
        "cosine distance",
        "mean absolute error at y = t",
        "reductionType",
        "mean with reduceAcrossBatch",
        "weight and weights",
        "weights shape",
        "source gradient shape",
        "sum by non-zero weights for softmax",
        "states",
        "computeLabelGradients",
        "offsets, clipRect, edge modes",
    }


def test_the_cases_of_a_version_never_change() -> None:
    digest = hashlib.sha256()
    for name, case in CASES.items():
        problem = None if case.problem is None else case.problem.to_json()
        digest.update(json.dumps([name, problem]).encode())
    assert digest.hexdigest() == DIGESTS[KIT_VERSION]


def test_the_cells_keep_every_divisor_apart() -> None:
    for loss_type in ("huber", "softmax_cross_entropy"):
        values = readings.divisor_values(everything_on(loss_type, "mean"))
        different = {tuple(value) for value in values.values()}
        assert len(different) == len(values)


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_problem_survives_the_file(name: str) -> None:
    problem = PROBLEMS[name]
    again = Problem.from_json(json.loads(json.dumps(problem.to_json())))
    for field in fields(Problem):
        before, after = (getattr(each, field.name) for each in (problem, again))
        if isinstance(before, np.ndarray):
            assert (after.dtype, after.shape) == (before.dtype, before.shape)
            assert after.tobytes() == before.tobytes()
        else:
            assert after == before


# --- The readings ---


def alternatives(expectation: Expectation) -> list[tuple[readings.Reading, Any]]:
    """The readings that are the contract but for one point."""
    contract = expectation.readings[0][0]
    return [(reading, answer) for reading, answer in expectation.readings
            if sum(reading[point] != contract[point] for point in contract) == 1]  # fmt: skip


def expectations(name: str) -> list[Expectation]:
    return [Expectation(PROBLEMS[name], result) for result in RESULTS]


def test_the_first_reading_is_the_contract() -> None:
    for name in PROBLEMS:
        for expectation in expectations(name):
            np.testing.assert_allclose(
                expectation.readings[0][1], expectation.contract[0], rtol=1e-12
            )


@pytest.mark.parametrize(
    "name", [name for name in PROBLEMS if name.startswith(("cell/", "header/"))]
)
def test_a_device_that_follows_another_reading_is_recognised(name: str) -> None:
    for expectation in expectations(name):
        expected = expectation.contract[0]
        for reading, answer in alternatives(expectation):
            record = expectation.judge("it", answer.astype(np.float32))
            assert record["number_of_matches"] > len(record["matches"]) or (
                reading in record["matches"]
            )
            same = np.allclose(answer, expected, rtol=1e-6, atol=1e-9, equal_nan=True)
            assert (record["verdict"] == "agrees") == same, reading
            if not same:
                contract = expectation.readings[0][0]
                (point,) = [point for point in contract if reading[point] != contract[point]]
                assert f"{point}: " in record["words"]
                assert f", not {contract[point]}" in record["words"]


def test_some_case_tells_every_alternative_from_the_contract() -> None:
    offered, told = set(), set()
    for name in PROBLEMS:
        for expectation in expectations(name):
            contract = expectation.readings[0]
            for reading, answer in alternatives(expectation):
                (point,) = [point for point in reading if reading[point] != contract[0][point]]
                key = (point, reading[point])
                if point == "formula":
                    key = (expectation.problem.loss_type, expectation.result, reading[point])
                offered.add(key)
                if key in told:
                    continue
                with np.errstate(over="ignore"):
                    record = expectation.judge("it", answer.astype(np.float32))
                if contract[0] not in record["matches"] and record["number_of_matches"] < 12:
                    told.add(key)
    assert offered - told == set()
    assert len(offered) > 50


def test_words_for_a_result_that_differs() -> None:
    expectation = Expectation(plain("mean_squared_error", "mean"), "predictions")
    right = expectation.contract[0].astype(np.float32)
    assert expectation.judge("it", right)["verdict"] == "agrees"
    rounded = expectation.judge("it", right * np.float32(1 + 1e-5))
    assert rounded["verdict"] == "differs"
    assert rounded["words"].startswith("rounding: ")
    wrong = expectation.judge("it", right * np.float32(7.5))
    assert wrong["words"].startswith("like no reading; at (")
    assert wrong["matches"] == []
    for fitted in wrong["scale"]:
        assert fitted["scale"] == pytest.approx(7.5 / 105)
        assert fitted["left_over"] < 1e-6
    undivided = expectation.judge("it", right * np.float32(105))
    assert undivided["words"].startswith("divisor: 1, not H·W·C; at ")


def test_nan_where_a_number_belongs_differs() -> None:
    expectation = Expectation(plain("huber", "none"), "loss")
    result = expectation.contract[0].astype(np.float32)
    result[0, 0, 0, 0] = np.nan
    record = expectation.judge("it", result)
    assert (record["verdict"], record["error"], record["matches"]) == ("differs", "inf", [])
    json.dumps(record, allow_nan=False)


def test_facts_and_refusals() -> None:
    assert fact("width", 1, 1)["verdict"] == "agrees"
    assert fact("width", 2, 1)["words"] == "2, documented 1"
    assert fact("width", 2)["verdict"] == "recorded"

    def refuse() -> None:
        raise ValueError("no")

    assert expected_refusal("it", ValueError, refuse)["verdict"] == "agrees"
    assert (
        expected_refusal("it", TypeError, refuse)["words"] == "ValueError in place of TypeError: no"
    )
    assert expected_refusal("it", ValueError, int)["words"] == "accepted, not ValueError"


# --- Child processes ---

DEADLY = """
import os, signal, time
from mpsnn_loss._conformance.case import Case
from mpsnn_loss._conformance.judging import fact

def good(device):
    return {"results": [fact("device", device.name)]}

def kills(device):
    print("about to end", file=__import__("sys").stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

def aborts(device):
    os.abort()

def exits(device):
    os._exit(3)

def hangs(device):
    time.sleep(600)

def raises(device):
    raise ZeroDivisionError("no")

CASES = {name: Case(name, run, risky) for name, run, risky in [
    ("first", good, False), ("kills", kills, False), ("second", good, False),
    ("aborts", aborts, True), ("hangs", hangs, False), ("exits", exits, False),
    ("raises", raises, False), ("last", good, True)]}
"""


@pytest.fixture
def deadly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "deadly_cases.py").write_text(DEADLY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "deadly_cases"


def test_a_case_that_ends_its_process_does_not_end_the_run(deadly: str) -> None:
    names = list(workers.cases_of(deadly))
    device = ml.cpu_device()
    records = {
        record["case"]: record
        for record in workers.run_cases(names, device, module=deadly, seconds=10)
    }
    assert list(records) == names
    for name in ("first", "second", "last"):
        assert records[name]["results"][0]["value"] == device.name
    ends = {name: record["results"][0]["words"] for name, record in records.items()
            if report.verdict(record) == "died"}  # fmt: skip
    assert ends == {
        "kills": "the process ended with signal SIGKILL",
        "aborts": "the process ended with signal SIGABRT",
        "hangs": "did not end in 10 s",
        "exits": "the process ended with exit code 3",
    }
    assert records["kills"]["exit"] == -9
    assert records["kills"]["stderr"].startswith("about to end")
    assert report.verdict(records["raises"]) == "refused"
    assert records["raises"]["results"][0]["words"] == "ZeroDivisionError: no"


def test_the_debug_layer_of_metal_is_an_environment_of_the_child(
    deadly: str, tmp_path: Path
) -> None:
    (tmp_path / "seeing_cases.py").write_text("""
import os
from mpsnn_loss._conformance.case import Case
from mpsnn_loss._conformance.judging import fact
NAMES = ("METAL_DEVICE_WRAPPER_TYPE", "MTL_DEBUG_LAYER", "MPSNN_LOSS_DEVICE")
CASES = {"see": Case("see", lambda device: {
    "results": [fact(name, os.environ.get(name)) for name in NAMES]})}
""")
    seen = []
    for debug_layer in (False, True):
        (record,) = workers.run_cases(
            ["see"], ml.cpu_device(), module="seeing_cases", debug_layer=debug_layer
        )
        seen.append([result["value"] for result in record["results"]])
    assert seen == [[None, None, "CPU"], ["1", "1", "CPU"]]


# --- The report and the command ---


def record(verdict: str, name: str = "a case", **more: Any) -> dict[str, Any]:
    result = {"name": "loss", "verdict": verdict, "words": "why"}
    return {"case": name, "results": [result], "stderr": "", **more}


@pytest.mark.parametrize(
    ("verdict", "code"), [("agrees", 0), ("recorded", 0), ("absent", 0), ("differs", 1),
                          ("refused", 1), ("died", 1)]
)  # fmt: skip
def test_a_difference_is_no_failure_unless_strict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verdict: str, code: int
) -> None:
    monkeypatch.setattr(report, "run_cases", lambda *_, **__: iter([record(verdict)]))
    assert report.run(None, None, None, is_strict=False) == 0
    assert report.run(None, None, None, is_strict=True) == code
    assert report.SHOWN[verdict] in capsys.readouterr().out.splitlines()[0]


def test_a_second_run_names_what_it_repeats() -> None:
    first = {"debug_layer": False, "cases": [record("agrees", "a"), record("agrees", "b")]}
    second = {"debug_layer": True, "cases": [record("agrees", "a"), record("died", "b")]}
    assert report.without_echo([first, second]) == [
        first,
        {
            "debug_layer": True,
            "cases": [{"case": "a", "same": True, "stderr": ""}, record("died", "b")],
        },
    ]


def test_one_case_by_name() -> None:
    result = command("--device", "cpu", "--case", "header/Huber")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[0] == "agrees    header/Huber"
    assert "1 cases: 1 agree," in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "toaster"], "MPSNN_LOSS_DEVICE must name a device that is here"),
        (["--case", "nothing"], "there is no case 'nothing'"),
        (["--json", "no/such.json"], "--json: must be a file in an existing folder"),
    ],
)
def test_a_mistaken_command_is_refused(arguments: list[str], words: str) -> None:
    result = command(*arguments)
    assert result.returncode == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_the_environment_names_the_machine(device: ml.Device) -> None:
    facts = environment.describe(device)
    json.dumps(facts, allow_nan=False)
    assert facts["device"]["kind"] == device.kind
    assert facts["package"]["version"] == ml.__version__
    assert {"system", "release", "architecture", "chip"} <= facts["machine"].keys()
    assert ("class" in facts["device"]) == (device.kind == "metal")


def test_the_inputs_are_exact_in_float16() -> None:
    for name, problem in PROBLEMS.items():
        if not name.startswith("cell/"):
            continue
        assert problem.predictions.shape == SHAPE
        for field in ("predictions", "labels", "weights", "source_gradients"):
            array = getattr(problem, field)
            assert (array.astype(np.float16) == array).all(), (name, field)


# --- Objective-C messages ---


@pytest.fixture(scope="module")
def foundation() -> None:
    import ctypes.util

    name = ctypes.util.find_library("Foundation" if sys.platform == "darwin" else "gnustep-base")
    try:
        ctypes.CDLL(name or "there is no Foundation", ctypes.RTLD_GLOBAL)
        objc.runtime()
    except OSError as error:
        pytest.skip(str(error))


def test_messages_reach_objects(foundation: None) -> None:
    import ctypes

    with objc.autorelease_pool():
        word = ctypes.create_string_buffer("größer".encode())
        string = objc.send(objc.class_named("NSString"), "stringWithUTF8String:", word)
        assert objc.text(string) == "größer"
        array = objc.array_of([string, string, string])
        assert objc.send(array, "count") == 3
        assert objc.send(array, "objectAtIndex:", 2) == string
        assert objc.flag(string, "boolValue") is False
        assert "String" in objc.class_name_of(string)
        with pytest.raises(LookupError, match="does not respond to noSuchMethod"):
            objc.send(string, "noSuchMethod")
        with pytest.raises(LookupError, match="sent to nil"):
            objc.send(0, "count")
        with pytest.raises(LookupError, match="no class NoSuchClass"):
            objc.class_named("NoSuchClass")
