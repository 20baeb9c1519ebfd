"""The bench command: how fast every loss is on this machine, and what a call costs."""

from __future__ import annotations

import json
import math
import statistics
import timeit
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np

import mpsnn_loss as ml
from mpsnn_loss._reference.formulas import LOSSES as FORMULAS

LOSSES = tuple(loss_type.name.lower() for loss_type in ml.MPSCNNLossType)
SHAPES: tuple[tuple[int, ...], ...] = ((1, 10), (4096, 10), (256, 1000), (4, 256, 256, 21))
QUICK_SHAPES: tuple[tuple[int, ...], ...] = ((1, 10), (64, 10))

Key = TypeVar("Key", bound=Hashable)


# --- Timing: calls in turn, so that whatever disturbs the machine disturbs them all ---


@dataclass(frozen=True)
class Effort:
    """How long to measure; times in seconds."""

    fewest_blocks: int = 4
    most_blocks: int = 15
    samples: int = 4  # of each block, or one of calls that are long
    long_call: float = 0.01
    sample_time: float = 1e-4  # short calls are repeated until a sample takes this long
    time_per_call: float = 0.2  # decides between the fewest and the most blocks

    def samples_of(self, seconds_per_call: float) -> int:
        return 1 if seconds_per_call > self.long_call else self.samples

    def blocks(self, seconds_per_call: float) -> int:
        samples = self.samples_of(seconds_per_call)
        block = (samples + 1) * max(self.sample_time, seconds_per_call)
        return min(max(int(self.time_per_call / block), self.fewest_blocks), self.most_blocks)


QUICK = Effort(fewest_blocks=2, most_blocks=2, samples=2, sample_time=2e-5, time_per_call=0.0)


def loop_length(timer: timeit.Timer, sample_time: float) -> tuple[int, float]:
    """How many calls make a sample, and the seconds of one call."""
    timer.timeit(1)  # the first call may compile or allocate
    number = 1
    while (seconds := timer.timeit(number)) < sample_time / 2:
        number *= 2
    per_call = seconds / number
    return max(1, math.ceil(sample_time / per_call)), per_call


def interleaved(
    timers: Mapping[Key, timeit.Timer],
    effort: Effort,
    before_block: Callable[[], None] = lambda: None,
) -> dict[Key, list[float]]:
    """Seconds per call, sample by sample. Blocks of samples alternate between the timers, and each
    block starts with a call that does not count."""
    lengths, blocks, counts = {}, {}, {}
    for key, timer in timers.items():
        lengths[key], per_call = loop_length(timer, effort.sample_time)
        blocks[key], counts[key] = effort.blocks(per_call), effort.samples_of(per_call)
    samples: dict[Key, list[float]] = {key: [] for key in timers}
    for block in range(max(blocks.values(), default=0)):
        for key, timer in timers.items():
            if block >= blocks[key]:
                continue
            before_block()
            timer.timeit(1)
            number = lengths[key]
            samples[key] += [timer.timeit(number) / number for _ in range(counts[key])]
    return samples


def medians(timers: Mapping[Key, timeit.Timer], effort: Effort) -> dict[Key, float]:
    return {key: statistics.median(times) for key, times in interleaved(timers, effort).items()}


# --- What is timed ---


def inputs(loss_type: str, shape: Sequence[int]) -> tuple[Any, Any]:
    """Float32 predictions and labels that the loss is meant for."""
    rng = np.random.default_rng(0)
    labels = rng.random(shape, np.float32)
    if loss_type in ("categorical_cross_entropy", "log"):
        return rng.uniform(0.02, 0.98, shape).astype(np.float32), labels
    if loss_type == "hinge":
        labels = np.round(labels)
    return rng.standard_normal(shape, np.float32), labels


def reduction(loss_type: str) -> str:
    return "sum" if FORMULAS[loss_type].per_pixel else "mean"


def call_overheads() -> dict[str, timeit.Timer]:
    """Calls on ten floats, NumPy's first."""
    predictions, labels = inputs("mean_squared_error", (1, 10))
    device = ml.cpu_device()
    descriptor = ml.MPSCNNLossDescriptor("mean_squared_error", "mean", reduce_across_batch=True)
    names = {
        "np": np,
        "ml": ml,
        "kernel": ml.MPSNNLossGradient(device, descriptor),
        "queue": device.make_command_queue(),
        "kind": ml.MPSCNNLossType.MEAN_SQUARED_ERROR,
        "y": predictions,
        "t": labels,
        "g": np.empty_like(predictions),
        "ones": np.ones((1, 1), np.float32),
    }
    statements = {
        "np.subtract(y, t, out=g)": "np.subtract(y, t, out=g)",
        "loss_gradient(y, t, kind, out=g)": "ml.loss_gradient(y, t, kind, out=g)",
        "kernel(y, t, out=g)": "kernel(y, t, out=g)",
        "encode_batch, commit, wait": (
            "buffer = queue.make_command_buffer();"
            "kernel.encode_batch(buffer, ones, y, t, None, None, g);"
            "buffer.commit(); buffer.wait_until_completed()"
        ),
    }
    return {name: timeit.Timer(text, globals=names) for name, text in statements.items()}


WORKS = {
    "loss": "ml.loss(y, t, kind, reduction=reduction)",
    "gradient": "ml.loss_gradient(y, t, kind, reduction=reduction, out=g)",
    "loss and gradient": "ml.loss_and_gradient(y, t, kind, reduction=reduction, out=g)",
}
ARRAYS_TOUCHED = {"loss": 2, "gradient": 3, "loss and gradient": 3}


@dataclass(frozen=True)
class Row:
    loss: str
    shape: tuple[int, ...]
    work: str
    microseconds: float
    nanoseconds_per_element: float
    gigabytes_per_second: float  # of the predictions, the labels and the gradient, each once


def rows(losses: Sequence[str], shapes: Sequence[tuple[int, ...]], effort: Effort) -> Iterator[Row]:
    for loss_type in losses:
        for shape in shapes:
            y, t = inputs(loss_type, shape)
            names = {"ml": ml, "kind": loss_type, "reduction": reduction(loss_type), "y": y, "t": t}
            names["g"] = np.empty_like(y)
            timers = {work: timeit.Timer(text, globals=names) for work, text in WORKS.items()}
            for work, seconds in medians(timers, effort).items():
                gigabytes = ARRAYS_TOUCHED[work] * y.nbytes / 1e9
                yield Row(
                    loss_type,
                    shape,
                    work,
                    seconds * 1e6,
                    seconds * 1e9 / y.size,
                    gigabytes / seconds,
                )


# --- What is printed ---


def print_row(row: Row) -> None:
    shape = " x ".join(map(str, row.shape))
    print(
        f"{row.loss:<28} {shape:<18} {row.work:<18} {row.microseconds:>10.2f} "
        f"{row.nanoseconds_per_element:>8.3f} {row.gigabytes_per_second:>8.2f}",
        flush=True,
    )


def run(losses: Sequence[str], threads: int | None, as_json: bool, quick: bool) -> int:
    if threads is not None:
        ml.set_num_threads(threads)
    effort, shapes = (QUICK, QUICK_SHAPES) if quick else (Effort(), SHAPES)
    overheads = {name: seconds * 1e9 for name, seconds in medians(call_overheads(), effort).items()}
    measured = rows(losses or LOSSES, shapes, effort)
    if as_json:
        report = {
            "build": ml.build_info(),
            "threads": ml.get_num_threads(),
            "call_nanoseconds": overheads,
            "losses": [asdict(row) for row in measured],
        }
        print(json.dumps(report, indent=2))
        return 0
    build = ml.build_info()
    print(f"mpsnn_loss {ml.__version__}, {build['instruction_set_in_use']}, ", end="")
    print(f"threads: {ml.get_num_threads()}, float32, medians")
    print(f"\n{'a call with ten floats':<34} {'ns':>8}")
    for name, nanoseconds in overheads.items():
        print(f"{name:<34} {nanoseconds:>8.0f}")
    print(f"\n{'loss':<28} {'shape':<18} {'work':<18} {'µs':>10} {'ns/elem.':>8} {'GB/s':>8}")
    for row in measured:
        print_row(row)
    return 0
