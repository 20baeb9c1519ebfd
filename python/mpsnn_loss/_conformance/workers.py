"""Cases in child processes: an abort is a finding, and the run goes on.

The cases that are not risky share a process as long as it lives; each risky one has its own. A
child writes a line of JSON as it begins a case and one when it has its record, so the case that a
child died in is known.

As a module this is the child: python -m mpsnn_loss._conformance.workers MODULE FILE CASE...
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import mpsnn_loss as ml
from mpsnn_loss._conformance.case import Case
from mpsnn_loss._conformance.judging import Record

MODULE = "mpsnn_loss._conformance.cases"
SECONDS = 120.0  # for one case
KEPT = 4000  # characters of what a child wrote to stderr
DEBUG_LAYER = {"METAL_DEVICE_WRAPPER_TYPE": "1", "MTL_DEBUG_LAYER": "1"}


def cases_of(module: str) -> dict[str, Case]:
    cases: dict[str, Case] = importlib.import_module(module).CASES
    return cases


def run_cases(
    names: list[str],
    device: ml.Device,
    *,
    module: str = MODULE,
    debug_layer: bool = False,
    seconds: float = SECONDS,
) -> Iterator[Record]:
    """The record of each case, in the order of `names`."""
    cases = cases_of(module)
    environment = {**os.environ, "MPSNN_LOSS_DEVICE": device.name}
    for variable in DEBUG_LAYER:
        environment.pop(variable, None)
    environment.update(DEBUG_LAYER if debug_layer else {})
    waiting = list(names)
    while waiting:
        alone = 1 if cases[waiting[0]].is_risky else len(waiting)
        together = next((i for i in range(1, alone) if cases[waiting[i]].is_risky), alone)
        records = _child(waiting[:together], module, environment, seconds)
        yield from records
        waiting = waiting[len(records) :]


def _child(
    names: list[str], module: str, environment: dict[str, str], seconds: float
) -> list[Record]:
    """The records of the first of the cases, at least one: up to the last, or one that died."""
    with tempfile.TemporaryDirectory() as folder:
        file, stderr = Path(folder, "records"), Path(folder, "stderr")
        file.touch()
        command = [sys.executable, "-m", "mpsnn_loss._conformance.workers", module, str(file)]
        with stderr.open("wb") as stream:
            child = subprocess.Popen(
                [*command, *names], env=environment, stdout=subprocess.DEVNULL, stderr=stream
            )
            code = _wait(child, file, seconds)
        records = [json.loads(line) for line in file.read_text().splitlines() if line]
        written = stderr.read_text(errors="replace")[-KEPT:]
    if not records:  # it died before the first case began
        records = [{"case": names[0]}]
    for record in records:
        record["stderr"] = written
    last = records[-1]
    if "results" not in last:
        last["exit"] = code
        last["results"] = [{"name": "process", "verdict": "died", "words": _end(code, seconds)}]
    elif code != 0:  # every case has its record: the process died on its way out
        last["exit"] = code
        last["results"].append(
            {"name": "process", "verdict": "died", "words": f"afterwards, {_end(code, seconds)}"}
        )
    return records


def _wait(child: subprocess.Popen[bytes], file: Path, seconds: float) -> int | None:
    """The exit code, or None where the child was killed as it did not get on with its cases.

    Until it begins the first one it has SECONDS: the machine may be busy.
    """
    size, deadline = -1, 0.0
    while True:
        if file.stat().st_size != size:
            size = file.stat().st_size
            deadline = time.monotonic() + (seconds if size else max(seconds, SECONDS))
        try:
            return child.wait(1)
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline:
                child.kill()
                child.wait()
                return None


def _end(code: int | None, seconds: float) -> str:
    if code is None:
        return f"did not end in {seconds:g} s"
    if code < 0:
        return f"the process ended with signal {signal.Signals(-code).name}"
    return f"the process ended with exit code {code}"


def _run_case(case: Case, device: ml.Device) -> Record:
    try:
        return case.run(device)
    except Exception as error:  # a finding like any other
        words = f"{type(error).__name__}: {error}"
        return {
            "traceback": traceback.format_exc(),
            "results": [{"name": "case", "verdict": "refused", "words": words}],
        }


def main(module: str, file: str, *names: str) -> int:
    cases, device = cases_of(module), ml.default_device()
    with Path(file).open("r+") as stream:
        for name in names:
            start = stream.tell()
            stream.write(json.dumps({"case": name}) + "\n")
            stream.flush()
            record = {"case": name, **_run_case(cases[name], device)}
            stream.seek(start)  # the record takes the place of the first line
            stream.truncate()
            stream.write(json.dumps(record, allow_nan=False) + "\n")
            stream.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
