"""What was measured, and the comparisons that tables, figures and targets are made of."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

OURS = "mpsnn_loss"
ONE_THREAD = "gradient, one thread"  # among the work of several
TRIAD, TRIAD_NON_TEMPORAL = "triad", "triad_non_temporal"


class Cell(NamedTuple):
    threads: int
    loss: str
    shape: str
    data: str

    def __str__(self) -> str:
        threads = f"{self.threads} thread" + ("s" if self.threads > 1 else "")
        return ", ".join(filter(None, (self.loss, self.shape, self.data, threads)))


class Task(NamedTuple):
    candidate: str
    work: str
    destination: str


class Peer(NamedTuple):
    name: str
    seconds: float


@dataclass
class Results:
    """The medians of every cell, in seconds."""

    cells: dict[Cell, dict[Task, float]] = field(default_factory=dict)
    bytes: dict[tuple[Cell, str], int] = field(default_factory=dict)  # of the cell and the work
    elements: dict[Cell, int] = field(default_factory=dict)
    calls: dict[tuple[int, str], float] = field(default_factory=dict)  # of the threads and the call
    facts: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    skipped: list[dict[str, Any]] = field(default_factory=list)

    def add(self, record: dict[str, Any]) -> None:
        if "skipped" in record:
            self.skipped.append(record)
        elif "peer" in record:
            self.versions[record["peer"]] = record["version"]
        elif "facts" in record:
            self.facts |= record["facts"]
        elif "call" in record:
            self.calls[record["threads"], record["call"]] = record["seconds"]
        else:
            cell = Cell(*(record[name] for name in Cell._fields))
            task = Task(*(record[name] for name in Task._fields))
            self.cells.setdefault(cell, {})[task] = record["seconds"]
            self.bytes[cell, task.work] = record["bytes"]
            self.elements[cell] = record["elements"]

    def ours(self, cell: Cell, work: str, destination: str) -> float | None:
        return self.cells[cell].get(Task(OURS, work, destination))

    def best_peer(
        self, cell: Cell, work: str, destination: str, names: Iterable[str] | None = None
    ) -> Peer | None:
        """The fastest of the peers named, or of all."""
        peers = [
            Peer(task.candidate, seconds)
            for task, seconds in self.cells[cell].items()
            if (task.work, task.destination) == (work, destination)
            and (task.candidate != OURS if names is None else task.candidate in names)
        ]
        return min(peers, key=lambda peer: peer.seconds, default=None)

    def from_memory(self, cell: Cell) -> bool:
        """Whether predictions, labels and gradient are larger than the last cache."""
        return bool(12 * self.elements[cell] > self.facts.get("last_level_cache", 32 << 20))

    def triad(self, cell: Cell) -> float | None:
        """Bytes a second: of the non-temporal triad from memory, of the faster one in cache."""
        times = {
            task.candidate: seconds
            for task, seconds in self.cells[cell].items()
            if task.work == "triad"
        }
        if self.from_memory(cell) and TRIAD_NON_TEMPORAL in times:
            times.pop(TRIAD)
        return 12 * self.elements[cell] / min(times.values()) if times else None

    def triad_fraction(self, cell: Cell, work: str, destination: str) -> float | None:
        """The bytes a second that the work has to touch, by those of the triad."""
        seconds, triad = self.ours(cell, work, destination), self.triad(cell)
        return self.bytes[cell, work] / seconds / triad if seconds and triad else None


def read(folder: Path) -> Results:
    results = Results()
    for record in records(folder):
        results.add(record)
    return results


def records(folder: Path) -> Iterator[dict[str, Any]]:
    for file in sorted(folder.glob("threads-*.jsonl")):
        yield from map(json.loads, file.read_text().splitlines())
