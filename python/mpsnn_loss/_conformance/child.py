"""A child process, from both sides: the parent reads what it writes, line by line.

As a module this is a child that runs cases: python -m mpsnn_loss._conformance.child FILE MODULE
NAMES, which are a list in JSON, as not every locale has their letters. It writes a line of JSON as
it begins a case and one when it has its record, so the case that a child died in is known, and what
was done before is not lost.
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
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import mpsnn_loss as ml
from mpsnn_loss._conformance.case import Case
from mpsnn_loss._conformance.judging import Record, has_device_error, refusal

KEPT = 4000  # characters of what a child wrote to stderr
PAUSE = 0.1  # seconds between two looks at a child


class Child:
    """A module as a process. Its `code` is None as long as it runs, and where it was killed."""

    def __init__(self, module: str, environment: dict[str, str], *arguments: str) -> None:
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.file = Path(self.folder.name, "lines")
        self.stderr = Path(self.folder.name, "stderr")
        self.file.touch()
        self.code: int | None = None
        self.deadline = 0.0
        self.since = time.monotonic()
        with self.stderr.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, str(self.file), *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stream,
            )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.folder.cleanup()

    def kill(self) -> None:
        """A process that hangs in the kernel does not go: it is left behind."""
        self.process.kill()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            print(f"process {self.process.pid} cannot be ended", file=sys.stderr)

    def lines(self, deadline: float) -> Iterator[Record]:
        """Each line when it is written, until the process has ended or is killed.

        Who reads them may move `self.deadline` at each.
        """
        self.deadline, rest = deadline, ""
        with self.file.open() as stream:
            while True:
                has_ended = self.process.poll() is not None  # before the last lines are read
                *whole, rest = (rest + stream.read()).split("\n")
                for line in whole:
                    self.since = time.monotonic()
                    yield json.loads(line)
                if has_ended:
                    self.code = self.process.returncode
                    return
                if time.monotonic() > self.deadline:
                    self.kill()
                    return
                with suppress(subprocess.TimeoutExpired):
                    self.process.wait(PAUSE)

    def written(self, start: int = 0, end: int | None = None) -> str:
        """The last of what it wrote to stderr between two places."""
        return self.stderr.read_bytes()[start:end].decode(errors="replace")[-KEPT:]

    def end(self) -> str:
        if self.code is None:
            return f"did not end in {self.deadline - self.since:.3g} s"
        if self.code < 0:
            return f"the process ended with signal {signal.Signals(-self.code).name}"
        return f"the process ended with exit code {self.code}"


# --- In the child ---


def write_line(stream: IO[str], line: Record) -> None:
    stream.write(json.dumps(line, allow_nan=False) + "\n")
    stream.flush()


def run_case(case: Case) -> Record:
    try:
        record = case.run(ml.default_device())
        json.dumps(record, allow_nan=False)
        return record
    except Exception as error:  # a finding like any other
        return {"traceback": traceback.format_exc(), "results": [refusal("case", error)]}


def main(file: str, module: str, names: str) -> int:
    cases: dict[str, Any] = importlib.import_module(module).CASES
    with Path(file).open("a") as stream:
        for name in json.loads(names):
            write_line(stream, {"case": name, "at": os.fstat(sys.stderr.fileno()).st_size})
            record = run_case(cases[name])
            write_line(stream, {"case": name, **record})
            if has_device_error(record):
                break  # the next case gets a new process
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
