"""The conformance kit: its cases, the readings of the header, and messages to objects.

How a run goes on whatever it meets is in test_conformance_run.py.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import mpsnn_loss as ml
import numpy as np
import pytest
from kit import conformance
from mpsnn_loss._conformance import KIT_VERSION, environment, fresh, readings, report, workers
from mpsnn_loss._conformance import objective_c as objc
from mpsnn_loss._conformance.cases import CASES
from mpsnn_loss._conformance.inputs import SHAPE, everything_on, plain
from mpsnn_loss._conformance.judging import Expectation, expected_refusal, fact, plain_value
from mpsnn_loss._conformance.problems import Problem

# Of the names and problems of all cases. A version of the kit never changes: a change of the cases
# raises KIT_VERSION and adds a line.
DIGESTS = {
    1: "c6afe6f7d114bc035caa4e5f8ac6334f0400b5cecc0135ef91014b1918b5ff64",
    2: "008c526a52a1457345c6c373b197a9afbb23fa88b5b5f44707018b1795131509",
}
PROBLEMS = {
    name: case.problem
    for name, case in CASES.items()
    if case.problem is not None and not name.startswith(("labels/", "witness/", "endurance/"))
}
RESULTS = ("loss", "predictions", "labels")


# --- The cases ---


def test_every_case_agrees(device: ml.Device, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    result = conformance("--device", device.name, "--json", str(file), "--strict")
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
    labels = [record for record in agreeing if record["case"].startswith("labels/")]
    assert len(labels) > 100


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


# --- What cases without a problem see: settings of the double that change it ---


def facts_of(name: str, folder: Path, **environment: str) -> dict[str, Any]:
    file = folder / "run.json"
    result = conformance("--device", "metal", "--case", name, "--json", str(file), **environment)
    assert result.returncode == 0, result.stdout + result.stderr
    (record,) = [each for each in json.loads(file.read_text())["runs"][0]["cases"]
                 if each["case"] == name]  # fmt: skip
    return {result["name"]: result.get("value") for result in record["results"]}


@pytest.mark.parametrize(("storage", "mode", "same"), [("managed", 1, False), ("shared", 0, True)])
def test_readback_without_synchronise(
    double: object, storage: str, mode: int, same: bool, tmp_path: Path
) -> None:
    facts = facts_of("endurance/readback", tmp_path, SOFTMETAL_STORAGE=storage)
    assert facts["storageMode"] == mode
    assert facts["the same bits without synchronise"] is same


@pytest.mark.parametrize("kind", ["forward, labels", "gradient, one image in two arguments"])
def test_read_counts_after_an_encode(double: object, kind: str, tmp_path: Path) -> None:
    for fault, count in {"": 4, "forget_read_count_decrement": 5}.items():
        facts = facts_of(f"operands/read counts/{kind}", tmp_path, SOFTMETAL_FAULT=fault)
        assert facts == {"readCount before": [5, 5], "readCount after": [count, count]}


def test_textures_are_arrays_from_five_channels_on(double: object) -> None:
    device = ml.devices()[0]
    for channels in range(1, 9):
        name = f"operands/textures/results/float16, {channels} channels"
        losses, gradients = CASES[name].run(device)["results"]
        assert losses["value"]["textureType"] == 2  # MTLTextureType2D
        assert gradients["value"]["textureType"] == (2 if channels <= 4 else 3)  # or an array
        assert gradients["value"]["image"]["featureChannelFormat"] == 3


def test_a_class_that_is_not_here_is_no_finding(
    device: ml.Device, request: pytest.FixtureRequest
) -> None:
    if device.kind == "metal":
        request.getfixturevalue("double")  # Macs have the class
    (result,) = CASES["witness/huber/sum"].run(device)["results"]
    assert result["verdict"] == "absent"
    assert ("no class MPSCNNLoss" in result["words"]) == (device.kind == "metal")


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


def test_the_environment_names_the_machine(device: ml.Device) -> None:
    facts = workers.look_at("cpu" if device.kind == "cpu" else device.name)
    assert facts["device"]["kind"] == device.kind
    assert facts["package"]["version"] == ml.__version__
    assert {"system", "release", "architecture", "process", "chip"} <= facts["machine"].keys()
    assert ("class" in facts["device"]) == (device.kind == "metal")


def test_both_device_calls_of_metal_are_asked(double: object) -> None:
    facts = workers.look_at("metal")
    assert facts["device"]["is_paravirtual"] is False
    first = facts["device_calls"]["MTLCreateSystemDefaultDevice"]
    assert facts["device_calls"]["MTLCopyAllDevices"] == [first]
    assert first["MPSSupportsMTLDevice"] is True
    assert first["name"] == facts["device"]["name"]


def test_under_rosetta_the_process_is_not_native(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment.sys, "platform", "darwin")
    monkeypatch.setattr(environment, "output", lambda *_: "x")
    for answer, word in {0: "native", 1: "Rosetta"}.items():
        monkeypatch.setattr(environment, "translated", lambda answer=answer: answer)
        assert environment.machine()["process"] == word


def test_the_inputs_are_exact_in_float16() -> None:
    for name, problem in PROBLEMS.items():
        if not name.startswith("cell/"):
            continue
        assert problem.predictions.shape == SHAPE
        for field in ("predictions", "labels", "weights", "source_gradients"):
            array = getattr(problem, field)
            assert (array.astype(np.float16) == array).all(), (name, field)


# --- Objective-C messages ---


def snake_case(name: str) -> str:
    return re.sub("[A-Z]", lambda letter: "_" + letter[0].lower(), name)


@pytest.mark.parametrize("name", fresh.OBJECTS)
def test_fresh_objects_are_read_as_the_package_reads_them(device: ml.Device, name: str) -> None:
    if device.objc_pointer is None:
        pytest.skip("it has no Objective-C objects")
    descriptor = ml.MPSCNNLossDescriptor("huber", "sum", number_of_classes=7)
    kinds = {"MPSCNNLossDescriptor": lambda _: ml.MPSCNNLossDescriptor("huber", "none"),
             "MPSNNInitialGradient": ml.MPSNNInitialGradient}  # fmt: skip
    make = kinds.get(name, lambda device: getattr(ml, name)(device, descriptor))
    package = make(device)
    with objc.autorelease_pool():
        results = fresh.report(name, device)["results"]
    compared = 0
    for result in results:
        here = plain_value(getattr(package, snake_case(result["name"]), None))
        if result["name"] in ("padding", "destinationImageAllocator", "clipRect") or here is None:
            continue
        there = tuple(result["value"]) if isinstance(here, tuple) else result["value"]
        assert there == pytest.approx(here, rel=1e-6), result["name"]
        compared += 1
    assert compared >= 8
    assert not [each for each in results if str(each["value"]).startswith("not here")]


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
