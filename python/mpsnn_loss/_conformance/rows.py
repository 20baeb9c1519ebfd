"""The rows of the contract's table of ambiguities, one point at a time; special values; shapes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

import mpsnn_loss as ml
from mpsnn_loss._conformance.case import BY_KERNELS, LABELS, Case, problem_case, with_labels
from mpsnn_loss._conformance.inputs import (
    PROPERTIES,
    SHAPE,
    everything_on,
    plain,
    source_gradients,
    weights_with_zeros,
)
from mpsnn_loss._conformance.judging import Record, expected_refusal
from mpsnn_loss._conformance.problems import Problem, Values, with_one_image_repeated
from mpsnn_loss._reference.formulas import LOSSES

LOSS_TYPES = tuple(LOSSES)
REDUCTIONS = ("none", "sum", "mean", "sum_by_non_zero_weights")


def reductions_of(loss_type: str) -> tuple[str, ...]:
    return ("sum",) if LOSSES[loss_type].per_pixel else REDUCTIONS


def cells() -> Iterator[Case]:
    """Each loss, reduction and sum across the batch, with everything on."""
    for loss_type in LOSS_TYPES:
        for reduction in reductions_of(loss_type):
            for across in (False, True):
                name = f"cell/{loss_type}/{reduction}{'/across the batch' if across else ''}"
                yield from with_labels(name, everything_on(loss_type, reduction, across))


# --- The rows of the contract's section 8 ---


def with_some_labels_equal(problem: Problem) -> Problem:
    labels = problem.labels.copy()
    labels[..., ::3] = problem.predictions[..., ::3]
    return replace(problem, labels=labels)


def in_a_state(loss_type: str) -> Problem:
    """Its values come from the forward loss, the gradient kernel has others."""
    return replace(everything_on(loss_type, "sum"), weights=None, own_values=(0.5, 0.5, 0.125, 0.5))


def full_weights(loss_type: str) -> Values:
    """Without zeros."""
    v = weights_with_zeros(loss_type)
    return np.where(v == 0, np.float32(0.5), v)


INHERITED: dict[str, Any] = {
    "primary_offset": (1, 0, 0),
    "secondary_offset": (0, 1, 0),
    "clip_rect": ((0, 0, 0), (1, 1, 1)),
    "destination_feature_channel_offset": 4,
    "primary_source_feature_channel_offset": 4,
    "secondary_source_feature_channel_offset": 4,
    "primary_source_feature_channel_max_count": 4,
    "secondary_source_feature_channel_max_count": 4,
    "primary_edge_mode": "clamp",
    "secondary_edge_mode": "clamp",
    "primary_stride_in_pixels_x": 2,
    "primary_stride_in_pixels_y": 2,
    "secondary_stride_in_pixels_x": 2,
    "secondary_stride_in_pixels_y": 2,
}


def refused_properties(device: ml.Device) -> Record:
    problem = plain("huber")
    results = []
    for name, value in INHERITED.items():
        kernel = ml.MPSNNLossGradient(device, problem.descriptor)
        setattr(kernel, name, value)
        call = partial(kernel, problem.predictions, problem.labels)
        results.append(expected_refusal(name, ValueError, call))
    return {"results": results}


def refused_source_gradients(device: ml.Device) -> Record:
    problem = plain("huber", "sum")
    kernel = ml.MPSNNLossGradient(device, problem.descriptor)
    call = partial(kernel, problem.predictions, problem.labels, source_gradients("none"))
    return {"results": [expected_refusal("full size under sum", ValueError, call)]}


def header_rows() -> Iterator[Case]:
    def row(name: str, problem: Problem) -> Iterator[Case]:
        return with_labels(f"header/{name}", problem)

    unlike = source_gradients("sum")
    yield from row("Huber", plain("huber", "none", delta=0.75))
    yield from row("hinge", plain("hinge", "none"))
    yield from row("Kullback-Leibler", plain("kullback_leibler_divergence", "none"))
    yield from row("softmax", plain("softmax_cross_entropy", "none"))
    yield from row("cosine distance", plain("cosine_distance"))
    yield from row(
        "cosine distance/weights",
        plain("cosine_distance", weights=weights_with_zeros("cosine_distance"), weight=1.5),
    )
    yield from row(
        "mean absolute error at y = t", with_some_labels_equal(plain("mean_absolute_error", "none"))
    )
    for reduction in REDUCTIONS[1:]:
        problem = plain("mean_squared_error", reduction, source_gradients=unlike)
        yield from row(f"reductionType/{reduction}", problem)
    for loss_type in ("softmax_cross_entropy", "mean_squared_error"):
        problem = plain(loss_type, "mean", reduce_across_batch=True, source_gradients=unlike)
        yield from row(f"mean with reduceAcrossBatch/{loss_type}", problem)
    v = full_weights("mean_squared_error")
    yield from row("weight and weights", plain("mean_squared_error", "none", weights=v, weight=1.5))
    for name, part in {
        "one channel": v[..., :1],
        "one pixel": v[:, :1, :1, :],
        "one value": v[:, :1, :1, :1],
        "one image": v[:1],
    }.items():
        yield from row(f"weights shape/{name}", plain("mean_squared_error", "none", weights=part))
    yield from row(
        "source gradient shape/one value under none",
        plain("mean_squared_error", "none", source_gradients=unlike),
    )
    yield Case("header/source gradient shape/full size under sum", refused_source_gradients)
    for across in (False, True):
        problem = plain(
            "softmax_cross_entropy",
            "sum_by_non_zero_weights",
            weights=weights_with_zeros("softmax_cross_entropy"),
            reduce_across_batch=across,
        )
        name = "across the batch" if across else "each image"
        yield from row(f"sum by non-zero weights for softmax/{name}", problem)
    for loss_type in ("softmax_cross_entropy", "huber", "log"):
        yield from with_labels(f"header/states/{loss_type}", in_a_state(loss_type), BY_KERNELS)
    for loss_type in LOSS_TYPES:
        reduction = reductions_of(loss_type)[0]
        problem = plain(loss_type, reduction, label_smoothing=0.25, epsilon=2.0**-10, delta=0.75)
        yield problem_case(f"header/computeLabelGradients/{loss_type}", problem, wanted=LABELS)
    yield Case("header/offsets, clipRect, edge modes", refused_properties)


# --- Special values ---


def one_row(loss_type: str, y: list[float], t: list[float], **fields: Any) -> Problem:
    """Pixels of one channel, or one pixel of many where channels are coupled."""
    shape = (1, 1, 1, -1) if loss_type == "softmax_cross_entropy" else (1, 1, -1, 1)
    arrays = (np.array(values, np.float32).reshape(shape) for values in (y, t))
    predictions, labels = arrays
    return plain(loss_type, fields.pop("reduction", "none"), predictions.shape,
                 predictions=predictions, labels=labels, **fields)  # fmt: skip


def zero_weights(loss_type: str, reduction: str, across: bool = False) -> Problem:
    """NaN where the weight is 0."""
    problem = plain(loss_type, reduction, weights=weights_with_zeros(loss_type)[..., :1],
                    reduce_across_batch=across)  # fmt: skip
    return replace(problem, predictions=np.where(problem.weights == 0, np.float32(np.nan),
                                                 problem.predictions))  # fmt: skip


def special_values() -> Iterator[Case]:
    inf, tiny = float("inf"), 1e-40
    problems = {
        "y = t": one_row("mean_absolute_error", [0, 1, -2], [0, 1, -2]),
        "hinge at the margin": one_row("hinge", [1, -1, 0, 1], [1, 0, 1, 0]),
        "Huber at δ": one_row("huber", [0.75, -0.75, 1, 0.5], [0, 0, 0.25, 1.25], delta=0.75),
        "t = 0 with y = 0/categorical": one_row("categorical_cross_entropy", [0, 0.5], [0, 0]),
        "t = 0 with y = 0/log": one_row("log", [0, 1], [0, 1]),
        "t = 0 with y = 0/log, ε = 0": one_row("log", [0, 1], [0, 1], epsilon=0.0),
        "t = 0 with y = 0/Kullback-Leibler": one_row(
            "kullback_leibler_divergence", [0, -2], [0, 0]
        ),
        "log at 0": one_row("log", [0, 1, 0.5], [0.5, 0.5, 0], epsilon=2.0**-10),
        "categorical at 0": one_row("categorical_cross_entropy", [0, 1], [1, 1]),
        "Kullback-Leibler at 0": one_row("kullback_leibler_divergence", [-inf, 0], [0.5, 1]),
        "-inf logit, softmax": one_row("softmax_cross_entropy", [-inf, 1, 2], [0, 0.5, 0.5]),
        "+inf logit, softmax": one_row("softmax_cross_entropy", [inf, 1, 2], [0, 0.5, 0.5]),
        "large logits, softmax": one_row("softmax_cross_entropy", [1e4, -1e4, 0], [0.5, 0.5, 0]),
        "infinite logits, sigmoid": one_row("sigmoid_cross_entropy", [inf, -inf, inf], [0, 0, 1]),
        "large logits, sigmoid": one_row("sigmoid_cross_entropy", [100, -100, 37, -20],
                                         [0, 1, 1, 0]),
        "denormals": one_row("mean_absolute_error", [tiny, -tiny, 3 * tiny], [0, 0, tiny]),
        "denormal predictions, categorical": one_row("categorical_cross_entropy", [tiny], [1]),
        "NaN": one_row("mean_squared_error", [float("nan"), 1], [0, 0], reduction="sum"),
    }  # fmt: skip
    for loss_type in ("mean_squared_error", "softmax_cross_entropy"):
        for reduction in ("none", "sum", "sum_by_non_zero_weights"):
            name = f"NaN without weight/{loss_type}/{reduction}"
            problems[name] = zero_weights(loss_type, reduction)
        for across in (False, True):
            problems[f"no weight at all/{loss_type}/{'across the batch' if across else 'each'}"] = (
                plain(loss_type, "sum_by_non_zero_weights", weights=np.zeros(SHAPE, np.float32),
                      reduce_across_batch=across)
            )  # fmt: skip
    for name, problem in problems.items():
        yield from with_labels(f"special/{name}", problem)


# --- Shapes and formats ---


def in_formats(problem: Problem, predictions: str, labels: str, weights: str) -> Problem:
    v = problem.weights
    return replace(
        problem,
        predictions=problem.predictions.astype(predictions),
        labels=problem.labels.astype(labels),
        weights=None if v is None else v.astype(weights),
    )


def shapes() -> Iterator[Case]:
    for loss_type in LOSS_TYPES:
        problem = plain(loss_type, reductions_of(loss_type)[0], **PROPERTIES)
        yield from with_labels(f"shape/float16/{loss_type}",
                           in_formats(problem, "float16", "float16", "float16"))  # fmt: skip
    for formats in (
        ("float16", "float32", "float32"),
        ("float32", "float16", "float32"),
        ("float32", "float32", "float16"),
    ):
        problem = plain("mean_squared_error", weights=full_weights("mean_squared_error"))
        yield from with_labels(
            "shape/mixed formats/" + ", ".join(formats), in_formats(problem, *formats)
        )
    for loss_type in ("mean_squared_error", "softmax_cross_entropy"):
        for channels in range(1, 6):
            problem = plain(loss_type, "sum", (2, 3, 5, channels))
            yield from with_labels(f"shape/channels/{channels}/{loss_type}", problem)
        problem = plain(loss_type, "mean", (64, 1, 1, 10), reduce_across_batch=True)
        yield from with_labels(f"shape/64 rows, packed by the functions/{loss_type}", problem)
    # The most that both readings of the limit on slices allow; more are among the direct cases.
    problem = plain("mean_squared_error", "sum", (1, 1, 1, 8188))
    yield from with_labels("shape/channels/8188", problem, BY_KERNELS, is_risky=True)
    for name, shape in {"wide": (1, 1, 16384, 1), "high": (1, 16384, 1, 1)}.items():
        problem = plain("mean_squared_error", "sum", shape)
        yield from with_labels(f"shape/16384 pixels/{name}", problem, BY_KERNELS, is_risky=True)
    problem = plain("softmax_cross_entropy")
    first: dict[str, Any] = {name: np.repeat(getattr(problem, name)[:1], 2, axis=0)
             for name in ("predictions", "labels", "source_gradients")}  # fmt: skip
    yield problem_case("shape/one image repeated", replace(problem, **first),
                       {"one image repeated": with_one_image_repeated})  # fmt: skip
