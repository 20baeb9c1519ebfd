"""One process with a fixed number of threads: checks every candidate, then times them in turn."""

from __future__ import annotations

import gc
import json
import statistics
import time
import timeit
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mpsnn_loss import _bench

from tests.bench import facts, peers
from tests.bench.problems import Candidate, Problem

SLEEP = 0.002  # so that threads of the candidate before, which may spin, have gone to sleep


def wait_for_quiet(patience: float) -> None:
    """Until no other task is runnable, or for so many seconds."""
    time.sleep(SLEEP)
    end = time.monotonic() + patience
    try:
        while time.monotonic() < end:
            with open("/proc/loadavg") as file:
                if int(file.read().split()[3].split("/")[0]) <= 1:
                    return
            time.sleep(SLEEP)
    except OSError:  # not Linux
        return


@dataclass
class Run:
    threads: int
    peers: Sequence[str]
    effort: _bench.Effort
    patience: float  # seconds to wait for a quiet machine before each block
    output: Path  # one JSON object a line, so that a run that is stopped keeps what it has

    def write(self, **record: Any) -> None:
        with self.output.open("a") as file:
            file.write(json.dumps({"threads": self.threads, **record}) + "\n")

    def available(self) -> dict[str, peers.Candidates]:
        found = {}
        for name in (*peers.ALWAYS, *self.peers):
            try:
                found[name] = peers.load(name)
                self.write(peer=name, version=peers.version(name))
            except (ImportError, OSError) as error:
                self.write(peer=name, skipped=str(error))
                print(f"without {name}: {error}")
        return found

    def all(self, problems: Sequence[Problem]) -> None:
        self.output.write_text("")
        np.seterr(over="ignore")  # exp(-y) of large logits, whose reciprocal is right
        self.costs()
        available = self.available()
        for number, problem in enumerate(problems, 1):
            start = time.monotonic()
            self.one(replace(problem), available)  # a copy, so that its arrays do not stay
            gc.collect()
            where = f"{problem.loss} {problem.shape} {problem.data}".strip()
            seconds = time.monotonic() - start
            print(f"[{number}/{len(problems)}] {where}, {seconds:.0f} s", flush=True)

    def one(self, problem: Problem, available: dict[str, peers.Candidates]) -> None:
        cell = {"loss": problem.loss, "shape": problem.shape, "data": problem.data}
        chosen: list[Candidate] = []
        for name, make in available.items():
            try:
                for candidate in make(problem, self.threads):
                    what = {"candidate": candidate.name, "work": candidate.work}
                    what["destination"] = candidate.destination
                    complaint = problem.complaint(candidate)
                    if complaint:
                        self.write(**cell, **what, skipped=complaint)
                        print(f"{problem.loss} {problem.shape}: {what}: {complaint}")
                    else:
                        chosen.append(candidate)
            except Exception as error:  # a peer that fails is a gap in the table, not the end
                self.write(**cell, peer=name, skipped=f"{type(error).__name__}: {error}")
                print(f"{problem.loss} {problem.shape}: {name}: {error}")
        timers = {index: timeit.Timer(c.call) for index, c in enumerate(chosen)}
        samples = _bench.interleaved(timers, self.effort, partial(wait_for_quiet, self.patience))
        for index, candidate in enumerate(chosen):
            self.write(
                **cell,
                candidate=candidate.name,
                work=candidate.work,
                destination=candidate.destination,
                seconds=statistics.median(samples[index]),
                fastest=min(samples[index]),
                samples=len(samples[index]),
                bytes=problem.bytes_touched(candidate.work),
                elements=int(problem.predictions.size),
            )

    def costs(self) -> None:
        """Of the package: a call with ten floats, its import, its size."""
        sizes = {"import_seconds": facts.import_seconds(9), "wheel_bytes": facts.wheel_bytes()}
        self.write(facts={**facts.machine(), **sizes})
        for name, seconds in _bench.medians(_bench.call_overheads(), self.effort).items():
            self.write(call=name, seconds=seconds)
