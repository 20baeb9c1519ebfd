"""Cases in child processes: an abort is a finding, and the run goes on.

The cases of one group share a process as long as it lives, and none of them met a DeviceError; each
risky one has its own. What a whole run may cost is its `Patience`: where that is used up, or a
smoke case does not work, the remaining cases are recorded as not run.
"""

from __future__ import annotations

import importlib
import json
import os
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field

from mpsnn_loss._conformance.case import Case
from mpsnn_loss._conformance.child import Child
from mpsnn_loss._conformance.judging import Record

CASES = "mpsnn_loss._conformance.cases"
SECONDS = 120.0  # for one case
RUN_SECONDS = 30 * 60.0  # for all of them
TIMEOUTS = 3  # in a row: the GPU answers nobody any more
LAYERS: dict[str, dict[str, str]] = {
    "none": {},
    "debug layer": {"METAL_DEVICE_WRAPPER_TYPE": "1", "MTL_DEBUG_LAYER": "1"},
    "shader validation": {"MTL_SHADER_VALIDATION": "1"},
}


def cases_of(module: str) -> dict[str, Case]:
    cases: dict[str, Case] = importlib.import_module(module).CASES
    return cases


@dataclass
class Patience:
    """How long a whole run goes on."""

    seconds: float = RUN_SECONDS
    timeouts: int = TIMEOUTS
    in_a_row: int = 0
    start: float = field(default_factory=time.monotonic)

    @property
    def deadline(self) -> float:
        return self.start + self.seconds

    def saw(self, record: Record) -> None:
        self.in_a_row = self.in_a_row + 1 if record.get("timed_out") else 0

    def end(self) -> str | None:
        """Why no more is done, or None."""
        if self.in_a_row >= self.timeouts:
            return f"{self.timeouts} cases in a row did not end in time"
        if time.monotonic() >= self.deadline:
            return f"the run ends after {self.seconds / 60:g} minutes"
        return None


def child_environment(device: str | None, layer: str = "none") -> dict[str, str]:
    """That of this process, with the device and the layer of Metal that a child shall have."""
    environment = dict(os.environ)
    for variable in (name for variables in LAYERS.values() for name in variables):
        environment.pop(variable, None)
    environment.update(LAYERS[layer])
    if device is not None:
        environment["MPSNN_LOSS_DEVICE"] = device
    return environment


def look_at(device: str | None, seconds: float = SECONDS) -> Record:
    """What a child finds out about the device: looking at it may end a process, too."""
    facts: Record = {}
    module = "mpsnn_loss._conformance.environment"
    with Child(module, child_environment(device)) as child:
        for line in child.lines(time.monotonic() + seconds):
            facts.update(line)
        if child.code != 0:
            facts["died"] = f"{child.end()}: {child.written()}"
    return facts


def run_cases(
    names: list[str],
    device: str | None = None,
    *,
    module: str = CASES,
    layer: str = "none",
    seconds: float = SECONDS,
    patience: Patience | None = None,
) -> Iterator[Record]:
    """The record of each case, as soon as it is there, in the order of `names`."""
    cases = {name: cases_of(module)[name] for name in names}
    environment = child_environment(device, layer)
    patience = patience or Patience()
    waiting, end = list(names), None
    while waiting:
        end = end or patience.end()
        if end is not None:
            yield not_run(waiting.pop(0), end)
            continue
        together = sharing(waiting, cases)
        with closing(_records(together, cases, module, environment, seconds, patience)) as records:
            for record in records:
                del waiting[0]
                patience.saw(record)
                if cases[record["case"]].is_smoke and not works(record):
                    end = f"{record['case']} does not work"
                yield record
                if end is not None or patience.end() is not None:
                    break


def not_run(name: str, why: str) -> Record:
    result = {"name": "case", "verdict": "not run", "words": why}
    return {"case": name, "stderr": "", "results": [result]}


def works(record: Record) -> bool:
    """Whether it gave an answer, be it a wrong one."""
    found = {result["verdict"] for result in record["results"]}
    return not found & {"died", "refused", "not run"}


def sharing(waiting: list[str], cases: dict[str, Case]) -> list[str]:
    """The first of the cases, and those after it that share its process."""
    first = cases[waiting[0]]
    together = [first.name]
    for name in waiting[1:] if not first.is_risky else []:
        if cases[name].is_risky or cases[name].group != first.group:
            break
        together.append(name)
    return together


def _records(
    names: list[str],
    cases: dict[str, Case],
    module: str,
    environment: dict[str, str],
    seconds: float,
    patience: Patience,
) -> Generator[Record, None, None]:
    """The records of the first of the cases, at least one: up to the last, or one that died.

    A record is held until the next case begins or the process has ended: only then it is known
    what was written to stderr, and whether the process died on its way out.
    """

    def deadline(name: str | None) -> float:
        # Until it begins the first case it has SECONDS: the machine may be busy.
        own = max(seconds, SECONDS) if name is None else cases[name].seconds or seconds
        return min(time.monotonic() + own, patience.deadline)

    held: Record | None = None
    with Child("mpsnn_loss._conformance.child", environment, module, json.dumps(names)) as child:
        for line in child.lines(deadline(None)):
            child.deadline = deadline(line["case"])
            if "results" in line:
                held = {**(held or {}), **line}
                continue
            if held is not None:
                yield _finished(held, child, line["at"])
            held = line
        yield _ended(held or {"case": names[0], "at": 0}, child)


def _finished(record: Record, child: Child, until: int | None = None) -> Record:
    record["stderr"] = child.written(record.pop("at"), until)
    return record


def _ended(record: Record, child: Child) -> Record:
    """The last record of a child that is no more."""
    if "results" not in record or child.code != 0:
        afterwards = "afterwards, " if "results" in record else ""
        result = {"name": "process", "verdict": "died", "words": afterwards + child.end()}
        record.setdefault("results", []).append(result)
        record["exit"], record["timed_out"] = child.code, child.code is None
    return _finished(record, child)
