"""The file of a run, written anew after each case: what was found is never lost."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from mpsnn_loss._conformance import KIT_VERSION
from mpsnn_loss._conformance.judging import Record


class Recording:
    """One line for each case, under the facts about the machine; no file, no line."""

    def __init__(self, file: Path | None, environment: Record) -> None:
        self.file = file
        self.head = f'"kit": {KIT_VERSION},\n"environment": {dumped(environment)}'
        self.runs: list[tuple[str, list[str]]] = []
        self.first: dict[str, Any] = {}  # results of the first run, by case
        self.write()

    def start_run(self, layer: str) -> None:
        self.runs.append((layer, []))

    def add(self, record: Record) -> None:
        """A case whose results are those of the first run is only named in a later one."""
        name, results = record["case"], record["results"]
        if len(self.runs) == 1:
            self.first[name] = results
        elif results == self.first.get(name):
            record = {"case": name, "same": True, "stderr": record["stderr"]}
        self.runs[-1][1].append(dumped(record))
        self.write()

    def text(self) -> str:
        runs = ",\n".join(
            f'{{"layer": "{layer}", "cases": [\n' + ",\n".join(cases) + "\n]}"
            for layer, cases in self.runs
        )
        return f'{{\n{self.head},\n"runs": [\n{runs}\n]\n}}\n'

    def write(self) -> None:
        """Whole or not at all, whatever happens to this process or the machine meanwhile."""
        if self.file is None:
            return
        part = self.file.with_name(self.file.name + ".part")
        try:
            with part.open("w", encoding="utf-8") as stream:
                stream.write(self.text())
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(self.file)
        except OSError as error:  # the next case may find room again
            print(f"{self.file} could not be written: {error}", file=sys.stderr)


def dumped(record: Record) -> str:
    """Without the name of the user, which tracebacks have in their paths."""
    home = json.dumps(str(Path.home()))[1:-1]
    text = json.dumps(record, allow_nan=False)
    return text if len(home) < 2 else text.replace(home, "~")
