"""Runs of the conformance kit recorded on Macs, beside the reference and the CPU engine of today.

README.md in this folder tells how to record one.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import mpsnn_loss as ml
import numpy as np
import pytest
from mpsnn_loss._conformance import KIT_VERSION, report
from mpsnn_loss._conformance.case import BOTH_WAYS
from mpsnn_loss._conformance.judging import Expectation
from mpsnn_loss._conformance.problems import Problem, Values, array_from_json
from mpsnn_loss._reference.tolerances import error_ratios

FILES = sorted(Path(__file__).parent.glob("*.json"))
RECORDED = [pytest.param(file, id=file.stem) for file in FILES] or [
    pytest.param(
        None, id="none", marks=pytest.mark.skip(reason="no run on a Mac has been recorded yet")
    )
]


class Recording:
    """The first run of a file, the one without the debug layer."""

    def __init__(self, file: Path) -> None:
        self.whole = json.loads(file.read_text())
        if self.whole["kit"] > KIT_VERSION:
            raise ValueError(
                f"{file.name} is of kit {self.whole['kit']}; this one reads up to {KIT_VERSION}"
            )
        if self.whole["environment"]["device"].get("is_paravirtual"):
            raise ValueError(f"{file.name} is of a paravirtual device, which is no evidence")
        self.cases: dict[str, dict[str, Any]] = {
            record["case"]: record for record in self.whole["runs"][0]["cases"]
        }

    def problems(self) -> list[tuple[str, Problem, list[dict[str, Any]]]]:
        """Each case that is a call of a loss, with the results that have an output."""
        return [
            (
                name,
                Problem.from_json(record["problem"]),
                [result for result in record["results"] if "output" in result],
            )
            for name, record in self.cases.items()
            if "problem" in record
        ]


def otherwise_judged(recording: Recording) -> list[str]:
    """Results that the reference and the readings of today judge otherwise than the file says."""
    found = []
    for name, problem, results in recording.problems():
        expectations: dict[str, Expectation] = {}
        for result in results:
            what = result["result"]
            expectation = expectations.setdefault(what, Expectation(problem, what))
            judged = expectation.judge(result["name"], array_from_json(result["output"]))
            for key in ("verdict", "number_of_matches", "matches"):
                if judged[key] != result[key]:
                    found.append(f"{name}, {result['name']}: {key} {judged[key]}")
    return found


def otherwise_computed(recording: Recording) -> list[str]:
    """Results that agree with the contract, where those of the CPU engine are further away from
    them than the two tolerances together."""
    found = []
    for name, problem, results in recording.problems():
        answers: dict[tuple[str, str], Values] = {}
        for result in results:
            way = BOTH_WAYS.get(result["way"])
            if way is None or result["verdict"] != "agrees":
                continue
            key = (result["way"], result["result"])
            if key not in answers:
                answers[key] = way(ml.cpu_device(), problem, key[1:])[key[1]]
            recorded = array_from_json(result["output"])
            bound = Expectation(problem, result["result"]).contract[1]
            bound = bound[0] if recorded.ndim == 0 else bound.reshape(recorded.shape)
            both = error_ratios(recorded, answers[key].astype(np.float64), 2 * bound)
            if both.max(initial=0.0) > 1:
                found.append(f"{name}, {result['name']}: {both.max():.3g} of the tolerances")
    return found


def other_defaults(recording: Recording) -> list[str]:
    """Defaults of MPSNNLossGradient that the CPU engine does not have."""
    (record,) = report.run_cases(["object/defaults"], "cpu")
    here = {result["name"]: result["value"] for result in record["results"]}
    there = recording.cases["object/defaults"]["results"]
    return [f"{result['name']}: {result['value']}" for result in there
            if result.get("value") != here[result["name"]]]  # fmt: skip


@pytest.mark.parametrize("file", RECORDED)
def test_the_readings_of_today_judge_a_recorded_run_as_it_was_judged(file: Path) -> None:
    assert otherwise_judged(Recording(file)) == []


@pytest.mark.parametrize("file", RECORDED)
def test_the_cpu_engine_computes_what_the_mac_computed(file: Path) -> None:
    assert otherwise_computed(Recording(file)) == []


@pytest.mark.parametrize("file", RECORDED)
def test_the_cpu_engine_has_the_defaults_of_the_mac(file: Path) -> None:
    assert other_defaults(Recording(file)) == []


# --- The reader itself, with a run on the CPU engine ---

CASES = [
    "smoke/kernel",
    "smoke/encode",
    "header/states/log",
    "cell/softmax_cross_entropy/mean/across the batch",
    "cell/huber/none",
    "special/NaN",
    "shape/float16/hinge",
    "object/defaults",
    "labels/cell/huber/none",
]


@pytest.fixture(scope="module")
def own_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("golden") / "cpu.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPSNN_LOSS_DEVICE", "cpu")
        assert report.run(None, file, CASES, is_strict=True) == 0
    return file


@pytest.fixture
def own(own_file: Path) -> Recording:
    return Recording(own_file)


def test_a_run_on_the_cpu_engine_is_read_as_it_was_written(own: Recording) -> None:
    assert list(own.cases) == CASES
    assert len(own.problems()) == len(CASES) - 2
    assert otherwise_judged(own) == []
    assert otherwise_computed(own) == []
    assert other_defaults(own) == []


def test_another_output_is_noticed(own: Recording) -> None:
    for name, _, results in own.problems():
        for result in results:
            before = copy.deepcopy(result["output"])
            values = array_from_json(before)
            if np.isnan(values).all():
                continue
            changed = np.where(np.isfinite(values), 1.25 * values + 1.0625, values)
            result["output"]["hex"] = changed.astype(values.dtype).tobytes().hex()
            what = f"{name}, {result['name']}: "
            assert otherwise_judged(own)[0].startswith(what)
            assert otherwise_computed(own)[0].startswith(what)
            result["output"] = before


def test_another_verdict_or_default_is_noticed(own: Recording) -> None:
    results = own.problems()[-2][2]
    results[0]["verdict"] = "differs"
    results[1]["matches"] = []
    assert len(otherwise_judged(own)) == 2
    own.cases["object/defaults"]["results"][0]["value"] = 17
    assert len(other_defaults(own)) == 1


def test_a_file_that_is_no_evidence_is_refused(own_file: Path, tmp_path: Path) -> None:
    whole = json.loads(own_file.read_text())
    whole["environment"]["device"]["is_paravirtual"] = True
    virtual = tmp_path / "virtual.json"
    virtual.write_text(json.dumps(whole))
    with pytest.raises(ValueError, match="is of a paravirtual device"):
        Recording(virtual)


def test_a_file_of_a_later_kit_is_refused(own_file: Path, tmp_path: Path) -> None:
    whole = json.loads(own_file.read_text())
    later = tmp_path / "later.json"
    later.write_text(json.dumps({**whole, "kit": KIT_VERSION + 1}))
    with pytest.raises(ValueError, match=f"later.json is of kit {KIT_VERSION + 1}"):
        Recording(later)
