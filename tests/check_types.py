"""What type checkers are to make of calls; mypy reads it (pyproject.toml), nobody runs it."""

from __future__ import annotations

from typing import Any

import mpsnn_loss as ml
import numpy as np
from numpy.typing import NDArray
from typing_extensions import assert_type

Array = NDArray[np.floating[Any]]
Scalar = np.floating[Any]


class Tensor:
    """Of another library, which gives its arrays by DLPack alone, with arguments of its own."""

    def __dlpack__(self, stream: int | None = -1, **options: object) -> object: ...


def names(y: Array, name: str, loss: ml.LossName, reduction: ml.ReductionName) -> None:
    assert_type(ml.loss(y, y, name), Scalar)
    assert_type(ml.loss(y, y, loss, reduction=reduction), Scalar | Array)
    assert_type(ml.loss_gradient(y, y, name, reduction=name, device=name), Array)
    ml.MPSCNNLossDescriptor(name, name).loss_type = name


def results(y: Array) -> None:
    assert_type(ml.loss(y, y, "huber"), Scalar)
    assert_type(ml.loss(y, y, 6, reduction="mean_by_weights"), Scalar)
    assert_type(ml.loss(y, y, "huber", reduction="none"), Array)
    assert_type(ml.loss(y, y, "huber", reduction=ml.MPSCNNReductionType.NONE), Array)
    assert_type(ml.loss(y, y, "huber", reduce_across_batch=False), Array)
    assert_type(ml.loss_and_gradient(y, y, "huber"), tuple[Scalar, Array])
    assert_type(ml.loss_and_gradient(y, y, "huber", reduction="none"), tuple[Array, Array])
    assert_type(ml.loss_gradient_and_hessian(y, y, "huber", axis=1), tuple[Array, Array])
    assert_type(ml.reduction_divisor(y, y, "huber", sample_weight=[1.0]), float)


def tensors(t: Tensor, device: ml.Device, descriptor: ml.MPSCNNLossDescriptor) -> None:
    assert_type(ml.loss(t, t, "huber", class_weight=t, divisor=2), Scalar)
    assert_type(ml.loss_gradient(t, t, "huber", out=t), Tensor)
    assert_type(ml.loss_and_gradient(t, t, "huber", out=t), tuple[Scalar, Tensor])
    assert_type(ml.MPSNNForwardLoss(device, descriptor)(t, t, t), Array)
    images = ml.MPSImageBatch.from_array(device, t)
    assert_type(images.to_array(), Array)
    assert_type(images[0].__array__(), Array)


def refused(y: Array) -> None:
    ml.Device()  # type: ignore[call-arg]
    ml.loss_gradient(y, y, "huber", out=[1.0])  # type: ignore[arg-type]
    ml.loss_gradient(y, y, "huber", wrt="weights")  # type: ignore[arg-type]
