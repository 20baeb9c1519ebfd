"""A run of the kit: the table on the terminal, and the file."""

from __future__ import annotations

import io
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from mpsnn_loss._conformance import KIT_VERSION
from mpsnn_loss._conformance.judging import Record
from mpsnn_loss._conformance.recording import Recording
from mpsnn_loss._conformance.workers import (
    CASES,
    LAYERS,
    Patience,
    cases_of,
    look_at,
    run_cases,
    works,
)

# The worst of its results is the verdict of a case.
VERDICTS = ("died", "differs", "refused", "not run", "absent", "recorded", "agrees")
FINDINGS = ("died", "differs", "refused", "not run")
SHOWN = {
    "died": "DIED",
    "differs": "differs",
    "refused": "refused",
    "not run": "not run",
    "absent": "not here",
    "recorded": "recorded",
    "agrees": "agrees",
}
STOPPED = 130  # the exit code of what Ctrl-C ended


def verdict(record: Record) -> str:
    found = {result["verdict"] for result in record["results"]}
    return next(each for each in VERDICTS if each in found)


def print_case(record: Record) -> None:
    """One line, and one for each of its results that is not as the contract says."""
    if verdict(record) == "not run":  # there may be hundreds: the summary counts them
        return
    print(f"{SHOWN[verdict(record)]:<9} {record['case']}")
    for result in record["results"]:
        if result["verdict"] in ("died", "differs", "refused") or (
            result["verdict"] == "absent" and len(record["results"]) == 1
        ):
            print(f"{'':<9}   {result['name']}: {result['words']}")
    sys.stdout.flush()


def print_summary(records: list[Record], device: Record) -> None:
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
            ("not run", "not run"),
        )
    )
    errors = [result["error"] for result in results if isinstance(result.get("error"), float)]
    reasons = Counter(result["words"] for result in results if result["verdict"] == "not run")
    for reason, count in reasons.items():
        print(f"not run: {count} of the cases, as {reason}")
    print(
        f"kit {KIT_VERSION} on {device['name']} ({device['kind']}): {len(records)} cases: {counts}"
    )
    print(f"{len(results)} results, worst error {max(errors, default=0.0):.3g} of the tolerance")
    if device["is_paravirtual"]:
        print("This device is paravirtual: what it does is no evidence of what Apple's GPUs do.")


# --- The page for a device on which nothing works ---


def print_page(what: str, environment: Record, details: str) -> None:
    machine, calls = environment.get("machine", {}), environment.get("device_calls", {})
    system = [machine.get(name) for name in ("system", "os_version", "os_build", "release")]
    chip = [machine.get(name) for name in ("chip", "architecture", "process")]
    found = calls.get("MTLCopyAllDevices")
    rows = {
        "what happened": what,
        "system": " ".join(word for word in system if word),
        "processor": ", ".join(word for word in chip if word),
        "the default device": _device_words(calls.get("MTLCreateSystemDefaultDevice")),
        "all devices": ", ".join(map(_device_words, found)) or "none"
        if isinstance(found, list)
        else _device_words(found),
    }
    print("\nThe run ends here: without this step no other case would tell anything.\n")
    for name, words in rows.items():
        print(f"  {name:<20}{words}")
    if details.strip():
        print("\n" + "\n".join(f"  | {line}" for line in details.strip().splitlines()[-12:]))
    print(
        "\nThis is a finding, too. Please attach the file that --json FILE writes, or this page, to"
        "\nan issue of the project.\n"
    )


def _device_words(answer: Any) -> str:
    if not isinstance(answer, dict):
        return answer or "not asked"
    supported = answer.get("MPSSupportsMTLDevice", True)
    return str(answer["name"]) + ("" if supported else " (MPS does not support it)")


# --- The run ---


def chosen(prefixes: list[str] | None) -> list[str]:
    """A name chooses its case, a prefix all that begin with it; ValueError if it chooses none."""
    names = list(cases_of(CASES))
    found: set[str] = set()
    for prefix in prefixes or [""]:
        meant = [prefix] if prefix in names else [n for n in names if n.startswith(prefix)]
        if not meant:
            raise ValueError(f"there is no case that begins with {prefix!r}")
        found.update(meant)
    return [name for name in names if name in found]


def print_list(prefixes: list[str] | None) -> int:
    try:
        print(*chosen(prefixes), sep="\n")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def run_layer(
    layer: str, names: list[str], device: str | None, patience: Patience, recording: Recording
) -> list[Record]:
    records = []
    recording.start_run(layer)
    for record in run_cases(names, device, module=CASES, layer=layer, patience=patience):
        recording.add(record)
        print_case(record)
        records.append(record)
    return records


def run(
    device_name: str | None, file: Path | None, prefixes: list[str] | None, is_strict: bool
) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):  # a letter that it lacks would end the run
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        names = chosen(prefixes)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    smoke = [name for name, case in cases_of(CASES).items() if case.is_smoke]
    names = [*smoke, *(name for name in names if name not in smoke)]
    patience = Patience()
    environment = look_at(device_name)
    recording = Recording(file, environment)
    try:
        if environment.get("device") is None:
            why = environment.get("words", "looking at the device ended the process")
            print(why, file=sys.stderr)
            print_page(why, environment, environment.get("died", ""))
            return 2
        return run_layers(names, device_name, patience, recording, environment, is_strict)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return STOPPED
    finally:
        if file is not None:
            print(f"all of it in {file}")


def run_layers(
    names: list[str],
    device_name: str | None,
    patience: Patience,
    recording: Recording,
    environment: Record,
    is_strict: bool,
) -> int:
    """The cases on the device alone, then on Apple's systems with each layer of Metal."""
    device = environment["device"]
    is_apple = device["kind"] == "metal" and environment["machine"]["system"] == "Darwin"
    findings: set[str] = set()
    failed: Record | None = None
    for layer in LAYERS if is_apple else ("none",):
        if layer != "none":
            print(f"\nonce more, with the {layer} of Metal")
        records = run_layer(layer, names, device_name, patience, recording)
        print_summary(records, device)
        findings |= {verdict(record) for record in records} & set(FINDINGS)
        if layer == "none":
            failed = next((each for each in records if is_smoke(each) and not works(each)), None)
        if failed is not None:  # the layers may tell why, in as many cases
            names = [name for name in names if cases_of(CASES)[name].is_smoke]
    if failed is not None:
        words = f"{failed['case']}: {failed['results'][-1]['words']}"
        print_page(words, environment, failed["stderr"])
    return 1 if failed or (is_strict and findings) else 0


def is_smoke(record: Record) -> bool:
    return cases_of(CASES)[record["case"]].is_smoke
