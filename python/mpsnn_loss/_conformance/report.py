"""A run of the kit: the table on the terminal, and the file."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import mpsnn_loss as ml
from mpsnn_loss._conformance import KIT_VERSION
from mpsnn_loss._conformance.environment import describe
from mpsnn_loss._conformance.judging import Record
from mpsnn_loss._conformance.workers import cases_of, run_cases

# The worst of its results is the verdict of a case.
VERDICTS = ("died", "differs", "refused", "absent", "recorded", "agrees")
FINDINGS = ("died", "differs", "refused")
SHOWN = {
    "died": "DIED",
    "differs": "differs",
    "refused": "refused",
    "absent": "not here",
    "recorded": "recorded",
    "agrees": "agrees",
}


def choose_device(name: str | None) -> ml.Device:
    """By kind or name, as the environment variable does; ValueError lists what there is."""
    if name is not None:
        os.environ["MPSNN_LOSS_DEVICE"] = name
    return ml.default_device()


def verdict(record: Record) -> str:
    found = {result["verdict"] for result in record["results"]}
    return next(each for each in VERDICTS if each in found)


def print_case(record: Record) -> None:
    """One line, and one for each of its results that is not as the contract says."""
    print(f"{SHOWN[verdict(record)]:<9} {record['case']}")
    for result in record["results"]:
        if result["verdict"] in FINDINGS or (
            result["verdict"] == "absent" and len(record["results"]) == 1
        ):
            print(f"{'':<9}   {result['name']}: {result['words']}")


def print_summary(records: list[Record], device: ml.Device) -> None:
    cases = Counter(verdict(record) for record in records)
    results = [result for record in records for result in record["results"]]
    counts = ", ".join(
        f"{cases[each]} {words}"
        for each, words in (
            ("agrees", "agree"),
            ("recorded", "agree with facts recorded"),
            ("differs", "differ"),
            ("refused", "refused"),
            ("died", "died"),
            ("absent", "not available"),
        )
    )
    errors = [result["error"] for result in results if isinstance(result.get("error"), float)]
    print(f"kit {KIT_VERSION} on {device.name} ({device.kind}): {len(records)} cases: {counts}")
    print(f"{len(results)} results, worst error {max(errors, default=0.0):.3g} of the tolerance")


def without_echo(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A case whose results are those of the first run is only named in a later one."""
    first = {record["case"]: record["results"] for record in runs[0]["cases"]}
    return [
        runs[0],
        *(
            {
                **each,
                "cases": [
                    {"case": record["case"], "same": True, "stderr": record["stderr"]}
                    if record["results"] == first[record["case"]]
                    else record
                    for record in each["cases"]
                ],
            }
            for each in runs[1:]
        ),
    ]


def run(
    device_name: str | None, file: Path | None, names: list[str] | None, is_strict: bool
) -> int:
    try:
        device = choose_device(device_name)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    known = cases_of("mpsnn_loss._conformance.cases")
    unknown = [name for name in names or () if name not in known]
    if unknown:
        print(f"there is no case {unknown[0]!r}", file=sys.stderr)
        return 2
    has_debug_layer = device.kind == "metal" and sys.platform == "darwin"
    runs: list[dict[str, Any]] = []
    for debug_layer in (False, True) if has_debug_layer else (False,):
        if debug_layer:
            print("\nonce more, with the debug layer of Metal")
        records = []
        for record in run_cases(list(names or known), device, debug_layer=debug_layer):
            print_case(record)
            sys.stdout.flush()
            records.append(record)
        print_summary(records, device)
        runs.append({"debug_layer": debug_layer, "cases": records})
    if file is not None:
        whole = {"kit": KIT_VERSION, "environment": describe(device), "runs": without_echo(runs)}
        file.write_text(json.dumps(whole, indent=1, allow_nan=False) + "\n")
        print(f"all of it in {file}")
    found = {verdict(record) for each in runs for record in each["cases"]}
    return 1 if is_strict and found & set(FINDINGS) else 0
