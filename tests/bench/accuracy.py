"""How accurate the losses and gradients are, with every instruction set that runs here.

Each function is reached in bulk through the public functions, at points spread evenly over the
bit patterns of its domain. float32 is measured against float64, float64 against NumPy's longdouble
where that is wider, and both at some points against mpmath. Loss by loss, random inputs are
measured against the reference and its bounds. python -m tests.bench.accuracy
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, astuple, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import mpmath
import mpsnn_loss as ml
import numpy as np

from tests.bench.report import replace_section, table
from tests.reference import losses as reference

CHUNK = 1 << 20
SPOTS = 512
LONG_IS_WIDER = np.finfo(np.longdouble).eps < np.finfo(np.float64).eps


@dataclass(frozen=True)
class Row:
    what: str
    dtype: str
    points: int
    worst: float  # ULP of float32, relative for float64, the share of the bound for a loss
    at: str
    bound: float
    unit: str

    @property
    def kind(self) -> tuple[str, str]:
        return self.dtype, f"{self.bound:g} {self.unit}"

    @property
    def holds(self) -> bool:
        return self.worst <= self.bound


# --- Functions of one argument ---


@dataclass(frozen=True)
class Function:
    name: str
    call: Callable[[Any], Any]  # computes it through the package
    exact: Callable[[Any, Any], Any]  # of a module with exp, log and log1p, and the points
    low: float  # of the magnitude of the argument
    high: float
    signs: tuple[int, ...] = (1,)
    ulp: float = 4
    relative: float = 1e-14
    absolute: dict[str, float] | None = None  # an error below this always counts as none


def element(loss_type: str, wrt: str | None, label: float, points: Any) -> Any:
    """A loss (wrt None) or a derivative at labels that are all the same."""
    labels = np.full_like(points, label)
    return of_elements(loss_type, wrt, points, labels)


def of_elements(loss_type: str, wrt: str | None, predictions: Any, labels: Any) -> Any:
    if wrt is None:
        return ml.loss(predictions, labels, loss_type, reduction="none")
    return ml.loss_gradient(predictions, labels, loss_type, reduction="none", wrt=wrt)


def two_classes(points: Any, label: tuple[float, float], wrt: str) -> Any:
    """The gradient for the first of two classes, whose logits are the points and zeros."""
    predictions = np.stack([points, np.zeros_like(points)], axis=1)
    labels = np.broadcast_to(np.array(label, points.dtype), predictions.shape)
    return of_elements("softmax_cross_entropy", wrt, predictions, labels)[:, 0]


def upper_softplus(m: Any, x: Any) -> Any:
    return m.log1p(m.exp(-x))


def sigmoid(m: Any, x: Any) -> Any:
    return 1 / (1 + m.exp(-x))


SIGMOID, CATEGORICAL = "sigmoid_cross_entropy", "categorical_cross_entropy"
KULLBACK_LEIBLER = "kullback_leibler_divergence"
TINY, HUGE = 1.2e-38, 3.4e38  # the normal numbers of float32
FLOOR = {"float32": 1e-7, "float64": 1e-15}
BOTH = (1, -1)

FUNCTIONS = (
    Function(
        "−log y (categorical, labels)",
        partial(element, CATEGORICAL, "labels", 1),
        lambda m, x: -m.log(x),
        TINY,
        HUGE,
    ),
    Function(
        "−t·log y at t = 1 (categorical, loss)",
        partial(element, CATEGORICAL, None, 1),
        lambda m, x: -m.log(x),
        TINY,
        HUGE,
    ),
    Function(
        "−t/y at t = 1 (categorical)",
        partial(element, CATEGORICAL, "predictions", 1),
        lambda m, x: -1 / x,
        TINY,
        8e37,
    ),
    Function(
        "t·log t (Kullback-Leibler at y = 0, loss)",
        lambda x: of_elements(KULLBACK_LEIBLER, None, np.zeros_like(x), x),
        lambda m, x: x * m.log(x),
        TINY,
        3e36,
    ),
    Function(
        "log1p(exp(y)) for y < 0 (sigmoid at t = 0, loss)",
        partial(element, SIGMOID, None, 0),
        lambda m, x: m.log1p(m.exp(x)),
        1e-8,
        87,
        (-1,),
    ),
    Function(
        "log1p(exp(−y)) for y > 0 (sigmoid at t = 1, loss)",
        partial(element, SIGMOID, None, 1),
        upper_softplus,
        1e-8,
        87,
    ),
    Function(
        "σ(y) (sigmoid at t = 0)",
        partial(element, SIGMOID, "predictions", 0),
        sigmoid,
        1e-8,
        87,
        BOTH,
    ),
    Function(
        "σ(y) − 1 (sigmoid at t = 1)",
        partial(element, SIGMOID, "predictions", 1),
        lambda m, x: -sigmoid(m, -x),
        1e-8,
        87,
        BOTH,
    ),
    Function(
        "p of two classes (softmax)",
        lambda x: two_classes(x, (0, 1), "predictions"),
        sigmoid,
        1e-8,
        87,
        BOTH,
        ulp=8,
    ),
    Function(
        "−lp of two classes (softmax, labels)",
        lambda x: two_classes(x, (0, 1), "labels"),
        upper_softplus,
        1e-8,
        87,
        BOTH,
        ulp=8,
        absolute=FLOOR,
    ),
)


def sweep(function: Function, dtype: str, points: int) -> Iterator[Any]:
    """Chunks of points that are evenly spread over the bit patterns between low and high."""
    bits = np.uint32 if dtype == "float32" else np.uint64
    low, high = np.array([function.low, function.high], dtype).view(bits).astype(np.float64)
    rng = np.random.default_rng(0)
    for start in range(0, points, CHUNK):
        place = np.arange(start, min(points, start + CHUNK))
        patterns = low + (high - low) * ((place + rng.random(place.size)) / points)
        values = patterns.astype(bits).view(dtype)
        yield values * np.resize(np.array(function.signs, dtype), values.size)


def error(function: Function, actual: Any, exact: Any, dtype: str) -> Any:
    """ULP of float32, relative for float64, and 0 below the absolute bound."""
    difference = np.abs(actual.astype(exact.dtype) - exact)
    if function.absolute:
        difference = np.where(difference <= function.absolute[dtype], 0, difference)
    if dtype == "float32":
        return difference / np.spacing(np.abs(exact).astype(np.float32))
    return difference / np.abs(exact)


def spot_error(function: Function, points: Any, actual: Any, dtype: str) -> float:
    """The largest error at a few points, against mpmath."""
    with mpmath.workdps(40):
        exact = [function.exact(mpmath, mpmath.mpf(float(x))) for x in points]
        differences = [abs(mpmath.mpf(float(a)) - e) for a, e in zip(actual, exact, strict=True)]
        floor = function.absolute[dtype] if function.absolute else 0
        errors = [
            float(d / abs(e)) if d > floor else 0.0 for d, e in zip(differences, exact, strict=True)
        ]
    if dtype == "float32":
        values = np.abs(np.array([float(e) for e in exact])).astype(np.float32)
        return float((np.array(errors) * values / np.spacing(values)).max())
    return max(errors)


def measure(function: Function, dtype: str, points: int) -> Row:
    wide = np.float64 if dtype == "float32" else np.longdouble
    worst, at = -1.0, 0.0
    for x in sweep(function, dtype, points):
        actual = function.call(x)
        if dtype == "float32" or LONG_IS_WIDER:
            errors = error(function, actual, function.exact(np, x.astype(wide)), dtype)
            index = int(np.nan_to_num(errors, nan=np.inf).argmax())
            if not errors[index] <= worst:
                worst, at = float(errors[index]), float(x[index])
        chosen = np.random.default_rng(1).choice(x.size, max(1, SPOTS * x.size // points))
        spot = spot_error(function, x[chosen], actual[chosen], dtype)
        worst = max(worst, spot)
    bound = function.ulp if dtype == "float32" else function.relative
    unit = "ULP" if dtype == "float32" else "relative"
    place = f"y = {at:.9g}" if worst > 0 else ""
    return Row(function.name, dtype, points, worst, place, bound, unit)


# --- Whole losses, against the bounds of the reference ---


def share_of_bound(actual: Any, expected: Any, bound: Any) -> float:
    """The worst error by its bound, which may be above 1."""
    slack = 1e12
    return slack * reference.assert_within(actual, expected, bound * slack)


def loss_rows(dtype: str, points: int) -> Iterator[Row]:
    for loss_type, formula in reference.LOSSES.items():
        reduction = "sum" if formula.per_pixel else "none"
        worst = dict.fromkeys(("loss", "predictions", "labels"), 0.0)
        rng = np.random.default_rng(0)
        for _ in range(0, points, CHUNK):
            # One pixel an image, so that a cosine distance is summed over its channels alone.
            shape = (min(points, CHUNK) // 16, 1, 1, 16)
            y, t = (array.astype(dtype) for array in formula.inputs(rng, shape))
            call = reference.make_call(
                y, t, loss_type, reduction=reduction, reduce_across_batch=False
            )
            words = {"reduction": reduction, "reduce_across_batch": False}
            actual = ml.loss(y, t, loss_type, **words)
            bound = reference.forward_bound(call, dtype)
            worst["loss"] = max(worst["loss"], share_of_bound(actual, call.forward(), bound))
            for wrt in ("predictions", "labels"):
                actual = ml.loss_gradient(y, t, loss_type, **words, wrt=wrt)
                bound = reference.gradient_bound(call, dtype, wrt=wrt)
                share = share_of_bound(actual, call.gradient(wrt=wrt), bound)
                worst[wrt] = max(worst[wrt], share)
        for result, share in worst.items():
            name = result if result == "loss" else f"gradient by {result}"
            yield Row(f"{loss_type}, {name}", dtype, points, share, "", 1.0, "of the bound")


def softmax_rows(dtype: str, points: int) -> Iterator[Row]:
    """The gradient for many classes, in its own measure, with labels of any sum; where one class
    stands out, too."""
    for classes, deviation, above in (
        *((10, 1, 0), (10, 60, 0), (1000, 3, 0), (1000, 60, 0), (50257, 3, 0)),
        *((10, 1, 20), (100, 1, 20), (1000, 1, 20)),
    ):
        rng = np.random.default_rng(0)
        rows, worst = max(1, min(points, CHUNK) // classes), 0.0
        for _ in range(0, max(1, points // classes), rows):
            y = deviation * rng.standard_normal((rows, 1, 1, classes))
            y[..., 0] += above * rng.random((rows, 1, 1))
            y = y.astype(dtype)
            t = rng.random(y.shape).astype(dtype)
            call = reference.make_call(y, t, "softmax_cross_entropy", reduction="sum")
            actual = ml.loss_gradient(y, t, "softmax_cross_entropy", reduction="sum")
            bound = reference.gradient_bound(call, dtype)
            worst = max(worst, share_of_bound(actual, call.gradient(), bound))
        name = f"softmax gradient, {classes} classes, {deviation} × normal"
        name += f", one up to {above} above" if above else ""
        yield Row(name, dtype, points, worst, "", 1.0, "of the bound")


# --- Instruction sets ---


def all_rows(points: int) -> Iterator[Row]:
    few = max(1 << 12, points >> 6)  # float64, whose exact results are slow
    for dtype, count in (("float32", points), ("float64", few)):
        for function in FUNCTIONS:
            yield measure(function, dtype, count)
        yield from softmax_rows(dtype, count)
        yield from loss_rows(dtype, max(1 << 12, count >> 4))


def with_instruction_set(name: str, points: int) -> list[Row] | None:
    """In a process of its own; None where this machine does not run it."""
    environment = {**os.environ, "MPSNN_LOSS_ISA": name}
    probe = [sys.executable, "-c", "import mpsnn_loss as ml; ml.loss([1.0], [1.0], 0)"]
    if subprocess.run(probe, env=environment, capture_output=True).returncode != 0:
        return None
    command = [sys.executable, "-m", "tests.bench.accuracy", "--worker", "--points", str(points)]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return [Row(**json.loads(line)) for line in done.stdout.splitlines()]


def shown(row: Row) -> str:
    value = f"{row.worst:.2f}" if row.unit != "relative" else f"{row.worst:.1e}"
    text = f"{value} at {row.at}" if row.at else value
    return text if row.holds else f"**{text}**"


def report(measured: dict[str, list[Row]]) -> str:
    """The worst of each kind of bound: a row for each bound and dtype, a column for each set."""
    rows = []
    for kind in dict.fromkeys(row.kind for of_set in measured.values() for row in of_set):
        line = [*kind]
        for of_set in measured.values():
            of_kind = (row for row in of_set if row.kind == kind)
            worst = max(of_kind, key=lambda row: (not row.holds, row.worst))
            line.append(f"{shown(worst)}: {worst.what}")
        rows.append(line)
    return table(["dtype", "bound", *measured], rows)


def write_rows(measured: dict[str, list[Row]], path: Path) -> None:
    with path.open("w", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(["instruction_set", *(field.name for field in fields(Row))])
        for name, rows in measured.items():
            lines.writerows([name, *astuple(row)] for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.accuracy", description=__doc__)
    parser.add_argument("--points", type=int, default=1 << 26, help="of each function: %(default)s")
    parser.add_argument("--document", type=Path, help="write the table into this page too")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        with np.errstate(all="ignore"):
            for row in all_rows(arguments.points):
                print(json.dumps(asdict(row)), flush=True)
        return 0
    measured = {}
    for name in ml.build_info()["instruction_sets"]:
        rows = with_instruction_set(name, arguments.points)
        if rows is None:
            print(f"{name} does not run on this machine")
        else:
            measured[name] = rows
    text = report(measured)
    print(text)
    if arguments.document is not None:
        page = arguments.document.read_text()
        arguments.document.write_text(replace_section(page, "accuracy", text))
        write_rows(measured, arguments.document.with_name("accuracy.csv"))
    return 0 if all(row.holds for rows in measured.values() for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
