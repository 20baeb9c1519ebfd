"""The demo: handwritten digits, told apart by softmax regression that learns from the loss kernels.

NumPy multiplies the matrices of the model. The loss, and its gradient with respect to the model's
predictions, come from MPSNNForwardLoss and MPSNNLossGradient: one command buffer per batch.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import mpsnn_loss as ml

Array = NDArray[Any]

CLASSES = 10
SIDE = 8  # pixels; an image of a digit is SIDE x SIDE
BATCH = 64  # images
HELD_OUT = 0.2  # share of the images
LEARNING_RATE = 0.2
MOMENTUM = 0.9
SEED = 0
# Of central differences: step, and the relative difference that rounding alone may cause.
DIFFERENCES = {"float64": (1e-4, 1e-6), "float32": (5e-2, 2e-2)}
BAR = 24  # characters


class LossKernels:
    """Mean softmax cross entropy and its gradient, computed through one command queue."""

    def __init__(self, device: ml.Device) -> None:
        descriptor = ml.MPSCNNLossDescriptor(
            "softmax_cross_entropy", "mean", reduce_across_batch=True, number_of_classes=CLASSES
        )
        self.device = device
        self.queue = device.make_command_queue("demo")
        self.forward = ml.MPSNNForwardLoss(device, descriptor)
        self.initial = ml.MPSNNInitialGradient(device)
        self.gradient = ml.MPSNNLossGradient(device, descriptor)

    def loss_and_gradient(self, logits: Array, labels: Array) -> tuple[float, Array]:
        """The loss of a batch, and its gradient with respect to the logits [N, CLASSES]."""
        states = self.forward.result_state_batch(logits)
        with self.queue.make_command_buffer() as buffer:
            losses = self.forward.encode_batch(buffer, logits, labels, destination_states=states)
            ones = self.initial.encode_batch(buffer, losses)
            gradients = self.gradient.encode_batch(
                buffer, ones, logits, labels, source_states=states
            )
        return float(losses.to_array().flat[0]), gradients.to_array().reshape(logits.shape)

    def loss(self, logits: Array, labels: Array) -> float:
        with self.queue.make_command_buffer() as buffer:
            losses = self.forward.encode_batch(buffer, logits, labels)
        return float(losses.to_array().flat[0])


def largest_difference(kernels: LossKernels, logits: Array, labels: Array, step: float) -> float:
    """The gradient against central differences of the loss: the largest relative difference."""
    _, gradient = kernels.loss_and_gradient(logits, labels)
    moved = logits.copy()
    worst = 0.0
    for index in np.ndindex(*logits.shape):
        moved[index] = above = logits[index] + step
        loss_above = kernels.loss(moved, labels)
        moved[index] = below = logits[index] - step
        loss_below = kernels.loss(moved, labels)
        moved[index] = logits[index]
        expected = (loss_above - loss_below) / (float(above) - float(below))
        worst = max(worst, abs(float(gradient[index]) - expected) / abs(expected))
    return worst


class Model:
    """Softmax regression, trained by gradient descent with momentum."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.weights = rng.normal(0, 0.03, (SIDE * SIDE, CLASSES)).astype(np.float32)
        self.bias = np.zeros(CLASSES, np.float32)
        self.velocities = [np.zeros_like(self.weights), np.zeros_like(self.bias)]

    def logits(self, images: Array) -> Array:
        return images @ self.weights + self.bias

    def accuracy(self, images: Array, digits: Array) -> float:
        return float(np.mean(self.logits(images).argmax(axis=1) == digits))

    def learn(self, images: Array, gradient: Array) -> None:
        """One step down; `gradient` is that of the loss with respect to the logits."""
        slopes = (images.T @ gradient, gradient.sum(axis=0))
        parts = (self.weights, self.bias)
        for part, velocity, slope in zip(parts, self.velocities, slopes, strict=True):
            velocity *= MOMENTUM
            velocity -= LEARNING_RATE * slope
            part += velocity


@dataclass
class Part:
    """The images that are trained on, or those held out."""

    images: Array  # [N, SIDE * SIDE], 0 to 1
    digits: Array  # [N]
    labels: Array = field(init=False)  # [N, CLASSES], one-hot

    def __post_init__(self) -> None:
        self.labels = np.eye(CLASSES, dtype=np.float32)[self.digits]

    def weight_gradients(self, model: Model, kernels: LossKernels) -> Array:
        """The gradient of the loss by the weights of each class: [CLASSES, SIDE, SIDE]."""
        _, gradient = kernels.loss_and_gradient(model.logits(self.images), self.labels)
        by_class: Array = gradient.T @ self.images
        return by_class.reshape(CLASSES, SIDE, SIDE)


def split(images: Array, digits: Array, rng: np.random.Generator) -> tuple[Part, Part]:
    order = rng.permutation(len(images))
    count = int(HELD_OUT * len(images))
    images = (images / images.max()).astype(np.float32)
    held_out, training = order[:count], order[count:]
    return Part(images[training], digits[training]), Part(images[held_out], digits[held_out])


@dataclass
class History:
    """What the figure shows. A loss or accuracy per epoch is the one after it."""

    batch_losses: list[float] = field(default_factory=list)
    training: list[tuple[float, float]] = field(default_factory=list)  # loss, accuracy
    held_out: list[tuple[float, float]] = field(default_factory=list)
    first_gradients: Array = field(default_factory=lambda: np.zeros(0))
    last_gradients: Array = field(default_factory=lambda: np.zeros(0))


def show_progress(done: int, batches: int, epoch: int, epochs: int, words: str = "") -> None:
    """One line per epoch. A terminal also sees it grow."""
    if not words and not sys.stdout.isatty():
        return
    full = BAR * done // batches
    line = f"epoch {epoch:{len(str(epochs))}}/{epochs} [{'#' * full}{'-' * (BAR - full)}]"
    if sys.stdout.isatty():
        print("\r" + line, end="", flush=True)
    else:
        print(line, end="")
    if words:
        print(words, flush=True)


def train(
    model: Model, kernels: LossKernels, training: Part, held_out: Part, epochs: int,
    rng: np.random.Generator,
) -> History:  # fmt: skip
    history = History(first_gradients=training.weight_gradients(model, kernels))
    count = len(training.images)
    batches = epochs * -(-count // BATCH)
    for epoch in range(1, epochs + 1):
        order = rng.permutation(count)
        for start in range(0, count, BATCH):
            batch = order[start : start + BATCH]
            images = training.images[batch]
            loss, gradient = kernels.loss_and_gradient(model.logits(images), training.labels[batch])
            model.learn(images, gradient)
            history.batch_losses.append(loss)
            show_progress(len(history.batch_losses), batches, epoch, epochs)
        for part, results in ((training, history.training), (held_out, history.held_out)):
            loss = kernels.loss(model.logits(part.images), part.labels)
            results.append((loss, model.accuracy(part.images, part.digits)))
        (loss, accuracy), (_, accuracy_held_out) = history.training[-1], history.held_out[-1]
        words = f" loss {loss:.4f}  accuracy {accuracy:.4f}  held out {accuracy_held_out:.4f}"
        show_progress(len(history.batch_losses), batches, epoch, epochs, words)
    history.last_gradients = training.weight_gradients(model, kernels)
    return history


def ticker(name: str, *arguments: Any, **options: Any) -> Any:
    return getattr(importlib.import_module("matplotlib.ticker"), name)(*arguments, **options)


def draw_curves(axes: Any, history: History) -> None:
    losses, accuracies = axes
    epochs = np.arange(1, len(history.training) + 1)
    per_epoch = len(history.batch_losses) / len(epochs)
    batches = np.arange(1, len(history.batch_losses) + 1) / per_epoch
    losses.plot(batches, history.batch_losses, color="0.8", linewidth=0.8, label="each batch")
    for results, name in ((history.training, "training"), (history.held_out, "held out")):
        style = {"marker": "o", "markersize": 3.5, "label": name}
        losses.plot(epochs, [loss for loss, _ in results], **style)
        accuracies.plot(epochs, [accuracy for _, accuracy in results], **style)
    losses.set(ylabel="loss", yscale="log", title="Loss, by MPSNNForwardLoss")
    losses.yaxis.set_major_locator(ticker("LogLocator", subs=(1, 2, 5)))
    losses.yaxis.set_major_formatter(ticker("FormatStrFormatter", "%g"))
    losses.yaxis.set_minor_formatter(ticker("NullFormatter"))
    accuracies.set(ylabel="accuracy", title="Accuracy")
    accuracies.set_ylim(top=1.0)
    for chart in axes:
        chart.set_xlabel("epoch")
        chart.xaxis.set_major_locator(ticker("MaxNLocator", integer=True, steps=(1, 2, 5, 10)))
        chart.grid(alpha=0.3)
    losses.legend(loc="upper right")
    accuracies.legend(loc="lower right")


def draw_gradients(axes: Any, gradients: Array, when: str) -> None:
    """One row of images and their scale of colours."""
    limit = float(np.abs(gradients).max())
    for image, gradient in zip(axes, gradients, strict=True):
        shown = image.imshow(gradient, cmap="RdBu_r", vmin=-limit, vmax=limit)
        image.set(xticks=[], yticks=[])
    axes[0].set_ylabel(when)
    axes[0].figure.colorbar(shown, ax=list(axes), pad=0.01, shrink=0.85)


def draw(history: History, device: ml.Device, output: Path) -> None:
    """The curves above, one gradient image per class below."""
    figure = importlib.import_module("matplotlib.figure").Figure(
        figsize=(12, 7.6), dpi=110, layout="constrained"
    )
    figure.suptitle(f"Handwritten digits, softmax cross entropy on {device.name}", fontsize=14)
    above, below = figure.subfigures(2, 1, height_ratios=[5, 4], hspace=0.03)
    draw_curves(above.subplots(1, 2), history)
    below.suptitle(
        "Gradient of the loss with respect to the weights of each class, by MPSNNLossGradient\n"
        "blue: a larger weight lowers the loss",
        fontsize=12,
    )
    first, last = below.subplots(2, CLASSES)
    draw_gradients(first, history.first_gradients, "before training")
    draw_gradients(last, history.last_gradients, "after training")
    for digit, image in enumerate(first):
        image.set_title(str(digit))
    figure.savefig(output, format="png")


def missing_package() -> str:
    """The first package that the demo needs and this environment lacks, or nothing."""
    for package, module in (("scikit-learn", "sklearn"), ("matplotlib", "matplotlib")):
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
            return package
    return ""


def run(epochs: int, output: Path) -> int:
    package = missing_package()
    if package:
        print(f'the demo needs {package}: pip install "mpsnn-loss[demo]"', file=sys.stderr)
        return 1
    rng = np.random.default_rng(SEED)
    images, digits = importlib.import_module("sklearn.datasets").load_digits(return_X_y=True)
    training, held_out = split(images, digits, rng)
    model = Model(rng)
    kernels = LossKernels(ml.default_device())
    print(f"device    {kernels.device.name} ({kernels.device.kind})")
    print(f"data      {len(training.images)} digits to train on, {len(held_out.images)} held out")

    dtype = "float64" if kernels.device.supports("float64")[0] else "float32"
    step, allowed = DIFFERENCES[dtype]
    logits = model.logits(training.images[:BATCH]).astype(dtype)
    difference = largest_difference(kernels, logits, training.labels[:BATCH].astype(dtype), step)
    print(f"gradient  first batch against central finite differences of MPSNNForwardLoss, {dtype}:")
    print(f"          largest relative difference {difference:.1e} of {logits.size} numbers")

    history = train(model, kernels, training, held_out, epochs, rng)
    draw(history, kernels.device, output)
    print(f"held-out accuracy {history.held_out[-1][1]:.4f}, figure in {output}")
    if not difference <= allowed:
        print(f"the gradient and the finite differences disagree by {difference:.1e}, more than "
              f"{allowed:.0e}", file=sys.stderr)  # fmt: skip
        return 1
    return 0
