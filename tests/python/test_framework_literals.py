"""Weights by name against framework_literals.json: what other libraries answer.

The table is made by make_framework_literals.py; none of those libraries is needed here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mpsnn_loss as ml
import numpy as np
import pytest
from asked import in_the_reference
from reference import losses

CASES: list[dict[str, Any]] = json.loads(
    Path(__file__).with_name("framework_literals.json").read_text(encoding="utf-8")
)
PROPERTIES = {"axis", "ignore_index", "label_smoothing", "loss_type", "reduction"}
each_case = pytest.mark.parametrize(
    "case",
    CASES,
    ids=[f"{i}-{case['source']}".replace(" ", "_") for i, case in enumerate(CASES)],
)


def read(value: Any) -> Any:
    """Arrays of the hex floats, or of the integers."""
    if value is None:
        return None

    def number(each: Any) -> Any:
        if isinstance(each, list):
            return [number(e) for e in each]
        return float.fromhex(each) if isinstance(each, str) else each

    return np.array(number(value))


def call_of(case: dict[str, Any]) -> dict[str, Any]:
    numbers = {k: v if k in PROPERTIES else read(v) for k, v in case["call"].items()}
    smoothing = {k: read(v).item() for k, v in numbers.items() if k == "label_smoothing"}
    return numbers | smoothing


def assert_agrees(results: dict[str, Any], case: dict[str, Any]) -> None:
    relative = case["relative_error"]
    for key, expected in case["results"].items():
        np.testing.assert_allclose(results[key], read(expected), rtol=relative, atol=1e-15)


@each_case
def test_reference_agrees_with_other_libraries(case: dict[str, Any]) -> None:
    layout, call = in_the_reference(call_of(case))
    gradient = layout.from_images(call.gradient())
    assert_agrees({"loss": call.forward()[0], "gradient": gradient}, case)


@each_case
def test_functions_agree_with_other_libraries(case: dict[str, Any]) -> None:
    arguments = call_of(case) | {"device": ml.cpu_device()}
    loss, gradient = ml.loss_and_gradient(**arguments)
    assert_agrees({"loss": loss, "gradient": gradient}, case)


def test_the_table_has_what_libraries_weigh_by() -> None:
    given = {name for case in CASES for name, value in case["call"].items() if value is not None}
    assert given >= {"class_weight", "sample_weight", "ignore_index", "label_smoothing"}
    assert {case["call"]["loss_type"] for case in CASES} <= set(losses.LOSSES)
