"""The tables in Markdown and the figure, from what was measured."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.bench.problems import SHAPES, WORKS
from tests.bench.results import Cell, Results, Task, read, records
from tests.bench.targets import TARGETS


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def ratios_table(results: Results, threads: int, work: str) -> str:
    """The time of the best peer by ours, with `out=`: a row for each loss and a column a shape."""
    cells = {(c.loss, c.data, c.shape): c for c in results.cells if c.threads == threads}
    shapes = [shape for shape in SHAPES if any(key[2] == shape for key in cells)]

    def ratio(loss: str, data: str, shape: str) -> str:
        cell = cells.get((loss, data, shape))
        ours = results.ours(cell, work, "out=") if cell else None
        peer = results.best_peer(cell, work, "out=") if cell else None
        return f"{peer.seconds / ours:.2f} {peer.name}" if ours and peer else ""

    names = dict.fromkeys(key[:2] for key in cells)
    rows = [[*name, *(ratio(*name, shape) for shape in shapes)] for name in names]
    return table(["loss", "logits", *shapes], rows)


def speed(results: Results) -> str:
    parts = [machine(results)]
    for threads in sorted({cell.threads for cell in results.cells}):
        for work in WORKS:
            title = f"### {work.capitalize()}, {threads} thread" + ("s" if threads > 1 else "")
            parts += [title, ratios_table(results, threads, work)]
    if results.skipped:
        parts += ["### Left out", *(f"* {left_out(record)}" for record in results.skipped)]
    return "\n\n".join(parts)


def write_cells(results: Results, path: Path) -> None:
    """Every median, a row each."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow([*Cell._fields, *Task._fields, "microseconds"])
        for cell, tasks in results.cells.items():
            for task, seconds in tasks.items():
                rows.writerow([*cell, *task, f"{seconds * 1e6:.4g}"])


def left_out(record: dict[str, object]) -> str:
    names = ("peer", "candidate", "loss", "shape", "data", "work", "destination")
    where = ", ".join(str(record[name]) for name in names if record.get(name))
    return f"{where}: {record['skipped']}"


def machine(results: Results) -> str:
    facts = results.facts
    versions = ", ".join(f"{name} {v}" for name, v in results.versions.items() if v)
    return (
        f"{facts['processor']}, {facts['processors']} processors, last-level cache "
        f"{facts['last_level_cache'] / 2**20:.0f} MiB. {facts['system']}, "
        f"Python {facts['python']}, {facts['compiler']}, "
        f"instruction set {facts['instruction_set']}. {versions}."
    )


def targets(results: Results) -> str:
    rows = []
    for target in TARGETS:
        values = list(target.values(results))
        worst = target.worst(results)
        if worst is None:
            rows.append([target.text, f"{target.wanted:g}", "not measured", "", "", ""])
            continue
        reached = sum(target.reached(value) for _, value in values)
        wanted = f"{'≥' if target.at_least else '≤'} {target.wanted:g}"
        verdict = "reached" if reached == len(values) else "**not reached**"
        place, value = worst
        rows.append(
            [target.text, wanted, verdict, f"{reached} of {len(values)}", number(value), place]
        )
    return table(["target", "wanted", "", "cells", "worst", "where"], rows)


def calls(results: Results) -> str:
    rows = [
        [f"`{name}`", str(threads), f"{seconds * 1e9:.0f}"]
        for (threads, name), seconds in results.calls.items()
    ]
    return table(["call with ten floats", "threads", "ns"], rows)


def replace_section(page: str, name: str, text: str) -> str:
    """Put a generated text between its two markers."""
    pattern = rf"(<!-- {name}: generated -->\n).*?(<!-- end of {name} -->)"
    replaced, count = re.subn(pattern, lambda m: f"{m[1]}\n{text}\n\n{m[2]}", page, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"the page has {count} places for {name!r}, not one")
    return replaced


def write(folder: Path, document: Path | None) -> None:
    from tests.bench import figure

    results = read(folder)
    (folder / "results.json").write_text(json.dumps(list(records(folder)), indent=1))
    sections = {"targets": targets(results), "calls": calls(results), "speed": speed(results)}
    page = "\n\n".join(f"## {name.capitalize()}\n\n{text}" for name, text in sections.items())
    (folder / "performance.md").write_text(page + "\n")
    figure.draw(results, folder / "performance.png")
    write_cells(results, folder / "performance.csv")
    if document is not None:
        picture = document.with_suffix(".png")
        sections["targets"] += f"\n\n![Ratios to the best peer, and the roof]({picture.name})"
        text = document.read_text()
        for name, section in sections.items():
            text = replace_section(text, name, section)
        document.write_text(text)
        figure.draw(results, picture)
        write_cells(results, document.with_suffix(".csv"))
    print(sections["targets"])
    print(f"tables in {folder / 'performance.md'}, figure in {folder / 'performance.png'}")
