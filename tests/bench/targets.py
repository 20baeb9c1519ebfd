"""The speed that was asked for, and whether it was reached."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from tests.bench.problems import CHANNELS_FIRST, DESTINATIONS, INDICES, LOSSES, SOFTMAX
from tests.bench.results import ONE_THREAD, OURS, Cell, Results

Values = Iterator[tuple[str, float]]  # where, and the ratio there

COMPILED = ("torch closed", "torch.compile", "JAX jit")
ARITHMETIC = ("mean_absolute_error", "mean_squared_error", "huber", "hinge", "cosine_distance")
CHEAP = (*ARITHMETIC, "kullback_leibler_divergence")
DIVIDING = ("log", "categorical_cross_entropy")
SIGMOID = ("sigmoid_cross_entropy",)
SMOOTH = ("mean_squared_error", "huber")
SEGMENTATION = "4x256x256x21"
LARGE = "1048576x64"
ELEMENTWISE = (*CHEAP, *DIVIDING, *SIGMOID)

Choice = Callable[[Results, Cell], bool]


def in_cache(results: Results, cell: Cell) -> bool:
    return not results.from_memory(cell)


def from_memory(results: Results, cell: Cell) -> bool:
    return results.from_memory(cell)


def shaped(*shapes: str) -> Choice:
    return lambda results, cell: cell.shape in shapes


def anywhere(results: Results, cell: Cell) -> bool:
    return True


def chosen(results: Results, losses: Iterable[str], choice: Choice) -> Iterator[Cell]:
    wanted = tuple(losses)
    return (c for c in results.cells if c.loss in wanted and choice(results, c))


def faster(
    losses: Iterable[str],
    choice: Choice,
    peers: Iterable[str] | None = None,
    destinations: Iterable[str] = DESTINATIONS,
    work: str = "gradient",
) -> Callable[[Results], Values]:
    """The time of the best peer by ours."""

    def values(results: Results) -> Values:
        for cell in chosen(results, losses, choice):
            for destination in destinations:
                ours = results.ours(cell, work, destination)
                peer = results.best_peer(cell, work, destination, peers)
                if ours and peer:
                    yield f"{cell}, {destination}, {peer.name}", peer.seconds / ours

    return values


def of_triad(losses: Iterable[str], choice: Choice) -> Callable[[Results], Values]:
    def values(results: Results) -> Values:
        for cell in chosen(results, losses, choice):
            fraction = results.triad_fraction(cell, "gradient", "out=")
            if fraction:
                yield str(cell), fraction

    return values


def fused(losses: Iterable[str], choice: Choice) -> Callable[[Results], Values]:
    """Loss and gradient at once, by the slower of the two alone."""

    def values(results: Results) -> Values:
        for cell in chosen(results, losses, choice):
            both = results.ours(cell, "loss and gradient", "out=")
            gradient = results.ours(cell, "gradient", "out=")
            loss = results.ours(cell, "loss", "fresh")  # a number: there is nothing to allocate
            if both and gradient and loss:
                yield str(cell), both / max(gradient, loss)

    return values


def by_gradient(
    variant: str | tuple[str, ...], losses: Iterable[str], choice: Choice
) -> Callable[[Results], Values]:
    """Works whose names begin so, by the plain gradient of the same arrays."""

    def values(results: Results) -> Values:
        for cell in chosen(results, losses, choice):
            gradient = results.ours(cell, "gradient", "out=")
            if gradient is None:
                continue
            for task, seconds in results.cells[cell].items():
                if task.candidate == OURS and task.work.startswith(variant):
                    yield f"{cell}, {task.work.removeprefix('gradient, ')}", seconds / gradient

    return values


def ahead_of_slow_peers(losses: Iterable[str], choice: Choice) -> Callable[[Results], Values]:
    """The time of the best peer by ours, where that is below 0.8 of the triad."""

    def values(results: Results) -> Values:
        for cell in chosen(results, losses, choice):
            ours = results.ours(cell, "gradient", "out=")
            fraction = results.triad_fraction(cell, "gradient", "out=")
            peer = results.best_peer(cell, "gradient", "out=")
            if ours and fraction and peer and fraction * ours / peer.seconds < 0.8:
                yield f"{cell}, {peer.name}", peer.seconds / ours

    return values


def two_threads(results: Results) -> Values:
    """One thread's time by that of two, for arrays over a megabyte in cache."""
    for cell in results.cells:
        if cell.threads != 2 or results.from_memory(cell):
            continue
        one = results.ours(cell, ONE_THREAD, "out=")  # of arrays over a megabyte
        two = results.ours(cell, "gradient", "out=")
        if one and two:
            yield ", ".join(filter(None, cell[1:])), one / two


def call(start: str, unit: float) -> Callable[[Results], Values]:
    def values(results: Results) -> Values:
        for (threads, name), seconds in results.calls.items():
            if name.startswith(start):
                yield f"threads: {threads}", seconds / unit

    return values


def fact(name: str, unit: float) -> Callable[[Results], Values]:
    def values(results: Results) -> Values:
        if name in results.facts:
            yield "", results.facts[name] / unit

    return values


@dataclass(frozen=True)
class Target:
    text: str
    wanted: float
    values: Callable[[Results], Values]
    at_least: bool = True

    def reached(self, value: float) -> bool:
        return value >= self.wanted if self.at_least else value <= self.wanted

    def worst(self, results: Results) -> tuple[str, float] | None:
        pick = min if self.at_least else max
        return pick(self.values(results), key=lambda item: item[1], default=None)


def most(text: str, wanted: float, values: Callable[[Results], Values]) -> Target:
    return Target(text, wanted, values, at_least=False)


HESSIAN = "gradient, with Hessian"
SIZES = ("256x1000", "4096x10", SEGMENTATION)
BEST = "× the best of torch closed form, torch.compile and JAX"
TARGETS = (
    Target(f"softmax, 256x1000: {BEST}", 2.2, faster([SOFTMAX], shaped("256x1000"), COMPILED)),
    Target(
        f"softmax, 4096x10 and {SEGMENTATION}: {BEST}",
        2.5,
        faster([SOFTMAX], shaped("4096x10", SEGMENTATION), COMPILED),
    ),
    Target(f"softmax, class indices: {BEST}", 2.5, faster([INDICES], shaped(*SIZES), COMPILED)),
    Target(
        "softmax, 256x50257: × torch closed form with out=",
        1.8,
        faster([SOFTMAX], shaped("256x50257"), ["torch closed"], ["out="]),
    ),
    Target(
        f"softmax, {SEGMENTATION} and {LARGE}: × the best peer with out=",
        2.5,
        faster([SOFTMAX, INDICES], shaped(SEGMENTATION, LARGE), destinations=["out="]),
    ),
    Target(
        "softmax, 128 to 1024 classes from memory: × the best peer with out=",
        1.8,
        faster([SOFTMAX], shaped("65536x128", "16384x1024"), destinations=["out="]),
    ),
    Target(
        "softmax, 128 to 1024 classes from memory: of the triad",
        0.8,
        of_triad([SOFTMAX], shaped("65536x128", "16384x1024")),
    ),
    Target(
        "softmax, channels first: × the best peer with out=",
        2.5,
        faster([SOFTMAX, INDICES], shaped(*CHANNELS_FIRST), destinations=["out="]),
    ),
    Target(
        "softmax, channels last: × channels first",
        1.0,
        by_gradient("gradient, channels last", [SOFTMAX, INDICES], anywhere),
    ),
    Target("sigmoid, in cache: × the best peer", 2.0, faster(SIGMOID, in_cache)),
    Target("log and categorical, in cache: × the best peer", 1.5, faster(DIVIDING, in_cache)),
    Target(
        "sigmoid, log and categorical, from memory: of the triad",
        0.85,
        of_triad((*DIVIDING, *SIGMOID), from_memory),
    ),
    Target(
        "the others: × numba and torch closed form with out=",
        1.0,
        faster(CHEAP, anywhere, ["numba", "numba parallel", "torch closed"], ["out="]),
    ),
    Target(
        "the others, from memory: × the best of torch and JAX with out=",
        1.3,
        faster(CHEAP, from_memory, COMPILED, ["out="]),
    ),
    Target("the others, from memory: of the triad", 0.85, of_triad(CHEAP, from_memory)),
    Target(f"the others, {LARGE}: of the triad", 0.95, of_triad(CHEAP, shaped(LARGE))),
    Target(
        f"losses of elements, {LARGE}: × the best peer with out=",
        1.0,
        faster(ELEMENTWISE, shaped(LARGE), destinations=["out="]),
    ),
    Target(
        "the same, where the peer is below 0.8 of the triad",
        1.15,
        ahead_of_slow_peers(ELEMENTWISE, shaped(LARGE)),
    ),
    most(
        f"loss and gradient, {LARGE}, without a logarithm or an exponential: × the gradient",
        1.05,
        by_gradient("loss and gradient", ARITHMETIC, shaped(LARGE)),
    ),
    most(
        f"loss and gradient, {LARGE}, the others, one thread: × the gradient",
        1.5,
        by_gradient(
            "loss and gradient",
            (*DIVIDING, *SIGMOID, "kullback_leibler_divergence"),
            lambda results, cell: (cell.shape, cell.threads) == (LARGE, 1),
        ),
    ),
    most("with the Hessian, in cache: × the gradient", 1.3, by_gradient(HESSIAN, LOSSES, in_cache)),
    most(
        "with the Hessian, from memory: × the gradient",
        1.4,
        by_gradient(HESSIAN, (*ELEMENTWISE, SOFTMAX), from_memory),
    ),
    most(
        "with the Hessian, class indices from memory: × the gradient",
        1.55,
        by_gradient(HESSIAN, [INDICES], from_memory),
    ),
    most("in place: × out of place", 1.0, by_gradient("gradient, in place", LOSSES, anywhere)),
    most(
        f"float16 and bfloat16, {LARGE}, without a logarithm or an exponential: × float32",
        0.6,
        by_gradient(("gradient, float16", "gradient, bfloat16"), CHEAP, shaped(LARGE)),
    ),
    most(
        "weights of every shape: × none",
        1.3,
        by_gradient("gradient, weights", LOSSES, anywhere),
    ),
    most(
        "loss and gradient, arithmetic losses and softmax: × the slower one alone",
        1.15,
        fused([*ARITHMETIC, SOFTMAX, INDICES], anywhere),
    ),
    most("loss and gradient, sigmoid in cache: × the slower", 1.7, fused(SIGMOID, in_cache)),
    Target(
        "loss and gradient: × torch autograd",
        5.0,
        faster(
            (*CHEAP, *DIVIDING, *SIGMOID, SOFTMAX, INDICES),
            lambda results, cell: cell.loss not in SMOOTH or cell.shape != SEGMENTATION,
            ["torch autograd"],
            work="loss and gradient",
        ),
    ),
    Target(
        f"loss and gradient, MSE and Huber at {SEGMENTATION}: × torch autograd",
        3.5,
        faster(SMOOTH, shaped(SEGMENTATION), ["torch autograd"], work="loss and gradient"),
    ),
    Target("two threads, arrays over 1 MB in cache: × one thread", 1.8, two_threads),
    most("loss_gradient of ten floats with out=, ns", 350, call("loss_gradient", 1e-9)),
    most("a kernel called with ten floats and out=, ns", 300, call("kernel", 1e-9)),
    most("encode_batch, commit and wait, µs", 2, call("encode_batch", 1e-6)),
    most("import of the package after NumPy, ms", 15, fact("import_seconds", 1e-3)),
    most("wheel, MB", 3, fact("wheel_bytes", 1e6)),
)
