"""The figure: how much faster than the best peer, and how near to the limit of the memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.bench.problems import LOSSES, SHAPES
from tests.bench.results import Cell, Results

COLOURS = {1: "#7aa6c2", 2: "#1f4e79"}


def draw(results: Results, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure = pyplot.figure(figsize=(18, 16), layout="constrained")
    bars, roof = figure.subfigures(2, 1, height_ratios=(3, 2))
    draw_ratios(results, bars)
    draw_roof(results, roof)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def label(loss: str, data: str) -> str:
    return f"{loss.replace('_', ' ')} {data.removesuffix(' x normal')}".strip()


def draw_ratios(results: Results, figure: Any) -> None:
    """Bars of the best peer's time by ours, both with a given destination, for each shape."""
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    figure.suptitle("Gradient with out=: times faster than the best peer")
    shapes = [shape for shape in SHAPES if any(cell.shape == shape for cell in results.cells)]
    columns = -(-len(shapes) // 2)
    panels = figure.subplots(2, columns, sharex=True, squeeze=False).flat
    for panel in panels[len(shapes) :]:
        panel.set_axis_off()
    for panel, shape in zip(panels, shapes, strict=False):
        draw_shape(results, panel, [cell for cell in results.cells if cell.shape == shape])
        panel.set_title(shape, fontsize=9)
        panel.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        panel.xaxis.set_minor_formatter(NullFormatter())
    for threads in sorted({cell.threads for cell in results.cells}):
        panels[0].barh(0, 0, left=1, color=COLOURS.get(threads), label=f"threads: {threads}")
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)


def draw_shape(results: Results, panel: Any, cells: list[Cell]) -> None:
    names = sorted({(c.loss, c.data) for c in cells}, key=lambda n: (-LOSSES.index(n[0]), n[1]))
    for cell in cells:
        ours = results.ours(cell, "gradient", "out=")
        peer = results.best_peer(cell, "gradient", "out=")
        if ours and peer:
            offset = 0.2 if cell.threads == 1 else -0.2
            place, ratio = names.index((cell.loss, cell.data)) + offset, peer.seconds / ours
            panel.barh(place, ratio - 1, 0.4, left=1, color=COLOURS.get(cell.threads))
    panel.set_yticks(range(len(names)), [label(*name) for name in names], fontsize=6)
    panel.set_xscale("log", base=2)
    panel.axvline(1, color="black", linewidth=1)


def draw_roof(results: Results, figure: Any) -> None:
    """Bytes a second over the size of the work, below the triad of the same run."""
    figure.suptitle("Gradient with out=: GB/s of the bytes that have to move, and the memory triad")
    counts = sorted({cell.threads for cell in results.cells})
    panels = figure.subplots(1, len(counts), squeeze=False).flat
    for panel, threads in zip(panels, counts, strict=True):
        cells = [cell for cell in results.cells if cell.threads == threads]
        for loss in dict.fromkeys(cell.loss for cell in cells):
            points = [point(results, cell) for cell in cells if cell.loss == loss]
            scatter(panel, "o", [p for p in points if p], label(loss, ""))
        roof: dict[float, float] = {}  # the best of the cells of one size
        for cell in cells:
            size, speed = 12 * results.elements[cell], results.triad(cell)
            roof[size] = max(roof.get(size, 0), (speed or 0) / 1e9)
        scatter(panel, "k-", sorted(roof.items()), "triad")
        panel.set(xscale="log", yscale="log", xlabel="bytes", ylabel="GB/s")
        panel.set_title(f"threads: {threads}", fontsize=9)
        panel.legend(fontsize=6)


def scatter(panel: Any, style: str, points: list[tuple[float, float]], name: str) -> None:
    panel.plot([x for x, _ in points], [y for _, y in points], style, markersize=4, label=name)


def point(results: Results, cell: Cell) -> tuple[int, float] | None:
    seconds = results.ours(cell, "gradient", "out=")
    touched = results.bytes.get((cell, "gradient"))
    return (touched, touched / seconds / 1e9) if seconds and touched else None
