"""What holds for every input, whatever the values: properties searched for with Hypothesis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import mpsnn_loss as ml
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import losses

NAMES = [member.name.lower() for member in ml.MPSCNNLossType]
CPU = [device for device in ml.devices() if device.kind == "cpu"]
WITH_MEAN = [name for name in NAMES if not losses.LOSSES[name].per_pixel]
REDUCTIONS = [member.name.lower() for member in ml.MPSCNNReductionType]
WRT = ("predictions", "labels")

searched = settings(derandomize=True, deadline=None, max_examples=60, database=None)


@pytest.fixture(scope="module", params=["float32", "float64"])
def compute_dtype(request: pytest.FixtureRequest, device: ml.Device) -> str:
    """A type that results are computed in; float16 is float32 rounded, which has its own test."""
    supported, reason = device.supports(request.param)
    if not supported:
        pytest.skip(reason)
    return request.param


@dataclass(frozen=True)
class Case:
    """The arrays and the properties of a call."""

    loss_type: str
    arrays: dict[
        str, Any
    ]  # predictions, labels, weights, source_gradient; the last two may be None
    properties: dict[str, Any]

    @property
    def reduction(self) -> str:
        return str(self.properties["reduction"])

    @property
    def across(self) -> bool:
        return bool(self.properties["reduce_across_batch"])

    def with_arrays(self, **arrays: Any) -> Case:
        return replace(self, arrays={**self.arrays, **arrays})

    def with_properties(self, **properties: Any) -> Case:
        return replace(self, properties={**self.properties, **properties})

    def in_dtype(self, dtype: str) -> Case:
        """The same with the values that the type can hold."""
        stored = {k: None if a is None else np.asarray(a, dtype) for k, a in self.arrays.items()}
        # A source gradient is used in the type of the computation.
        if dtype == "float16" and self.arrays["source_gradient"] is not None:
            stored["source_gradient"] = stored["source_gradient"].astype("float32")
        return replace(self, arrays=stored)

    def results(self, device: ml.Device) -> dict[str, np.ndarray]:
        """The loss and both gradients of the arrays as they are, by separate calls."""
        without_g = {k: a for k, a in self.arrays.items() if k != "source_gradient"}
        common = {"loss_type": self.loss_type, "device": device, **self.properties}
        results = {"loss": np.asarray(ml.loss(**without_g, **common))}
        for wrt in WRT:
            results[wrt] = ml.loss_gradient(**self.arrays, **common, wrt=wrt)
        return results

    def bounds(self, dtype: str) -> dict[str, losses.Array]:
        """The tolerance of each of the results."""
        arrays = {k: a for k, a in self.arrays.items() if k != "source_gradient"}
        call = losses.make_call(**arrays, loss_type=self.loss_type, **self.properties)
        g = self.arrays["source_gradient"]
        forward = losses.forward_bound(call, dtype)
        bounds = {"loss": forward[0] if call.across_batch else forward}
        for wrt in WRT:
            bounds[wrt] = losses.gradient_bound(
                call, dtype, source_gradient=1.0 if g is None else g, wrt=wrt
            )
        return bounds


@st.composite
def cases(
    draw: st.DrawFn,
    names: list[str] = NAMES,
    reductions: list[str] = REDUCTIONS,
    with_weights: bool | None = None,
) -> Case:
    name = draw(st.sampled_from(names))
    per_pixel = losses.LOSSES[name].per_pixel
    smooths = losses.LOSSES[name].smoothing_level is not None
    shape = tuple(draw(st.tuples(*(st.integers(1, n) for n in (4, 3, 4, 40)))))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    y, t = losses.LOSSES[name].inputs(rng, shape)
    reduction = "sum" if per_pixel else draw(st.sampled_from(reductions))
    across = draw(st.booleans())
    weights = None
    if draw(st.booleans()) if with_weights is None else with_weights:
        weights = rng.uniform(0.5, 2, (*shape[:3], 1 if per_pixel else shape[3]))
        weights[rng.random(weights.shape) < draw(st.sampled_from([0.0, 0.3, 0.9]))] = 0
    g = None
    if draw(st.booleans()):
        g_shape = shape if reduction == "none" else () if across else shape[:1]
        g = rng.integers(-16, 16, g_shape) / 8.0
    # Exact in float16, so that every type computes the same thing.
    arrays = {"predictions": y, "labels": t, "weights": weights, "source_gradient": g}
    half = {k: None if a is None else np.float64(np.float16(a)) for k, a in arrays.items()}
    properties = {
        "reduction": reduction,
        "reduce_across_batch": across,
        "weight": draw(st.sampled_from([1.0, 0.7, -2.0])),
        "label_smoothing": draw(st.sampled_from([0.0, 0.15] if smooths else [0.0])),
        "number_of_classes": draw(st.sampled_from([None, 7])),
        "epsilon": draw(st.sampled_from([1e-3, 1e-7])),
        "delta": draw(st.sampled_from([1.0, 0.3])),
    }
    return Case(name, half, properties)


def assert_same_bits(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        assert actual[key].dtype == value.dtype
        assert actual[key].shape == value.shape
        assert actual[key].tobytes() == value.tobytes(), key


def assert_all_within(
    actual: dict[str, np.ndarray], expected: dict[str, Any], *bounds: dict[str, Any]
) -> None:
    """Each result may be as far away as the tolerances of all that were computed add up to."""
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        bound = sum(each[key] for each in bounds)
        losses.assert_within(actual[key], np.asarray(value, np.float64), bound, key)


def with_positive_labels(case: Case) -> Case:
    """A label of 0 has an infinite derivative, and infinities do not add up."""
    return case.with_arrays(labels=np.maximum(case.arrays["labels"], 0.125))


def scaled(results: dict[str, Any], factor: float) -> dict[str, losses.Array]:
    return {key: factor * np.asarray(value, np.float64) for key, value in results.items()}


def added(a: dict[str, Any], b: dict[str, Any]) -> dict[str, losses.Array]:
    return {key: a[key] + b[key] for key in a}


@searched
@given(case=cases(), a=st.integers(-4, 4), b=st.integers(-4, 4), seed=st.integers(0, 100))
def test_gradients_are_linear_in_the_source_gradient(
    device: ml.Device, compute_dtype: str, case: Case, a: int, b: int, seed: int
) -> None:
    case = with_positive_labels(case)
    rng = np.random.default_rng(seed)
    n, *_ = shape = case.arrays["predictions"].shape
    g_shape = shape if case.reduction == "none" else () if case.across else (n,)
    first, second = (rng.integers(-16, 16, g_shape) / 8 for _ in range(2))
    parts = [
        case.with_arrays(source_gradient=g).in_dtype(compute_dtype)
        for g in (first, second, a * first + b * second)
    ]
    p, q, whole = (part.results(device) for part in parts)
    p_bound, q_bound, whole_bound = (part.bounds(compute_dtype) for part in parts)
    for results in (p, q, whole, p_bound, q_bound, whole_bound):
        del results["loss"]
    expected = added(scaled(p, a), scaled(q, b))
    assert_all_within(
        whole, expected, whole_bound, scaled(p_bound, abs(a)), scaled(q_bound, abs(b))
    )


@searched
@given(case=cases(), a=st.sampled_from([0.7, -3.0]), b=st.sampled_from([0.1, 2.0]))
def test_everything_is_linear_in_weight(
    device: ml.Device, compute_dtype: str, case: Case, a: float, b: float
) -> None:
    case = with_positive_labels(case).in_dtype(compute_dtype)
    parts = [case.with_properties(weight=weight) for weight in (1.0, a, a + b)]
    unit, scaled_up, total = (part.results(device) for part in parts)
    unit_bound, a_bound, total_bound = (part.bounds(compute_dtype) for part in parts)
    assert_all_within(scaled_up, scaled(unit, a), a_bound, scaled(unit_bound, abs(a)))
    expected = added(scaled(unit, b), scaled_up)
    assert_all_within(total, expected, total_bound, a_bound, scaled(unit_bound, abs(b)))


@searched
@given(case=cases(), seed=st.integers(0, 100))
def test_permuted_pixels_have_permuted_results(
    device: ml.Device, compute_dtype: str, case: Case, seed: int
) -> None:
    n, height, width, _ = case.arrays["predictions"].shape
    order = np.random.default_rng(seed).permutation(height * width)

    def permuted(array: Any) -> Any:
        if array is None or np.ndim(array) < 4 or 0 in array.shape:
            return array
        return array.reshape(n, height * width, -1)[:, order].reshape(array.shape)

    case = case.in_dtype(compute_dtype)
    moved = case.with_arrays(**{key: permuted(array) for key, array in case.arrays.items()})
    expected = {key: permuted(value) for key, value in case.results(device).items()}
    bound = moved.bounds(compute_dtype)
    assert_all_within(moved.results(device), expected, bound, bound)


@searched
@given(case=cases(names=WITH_MEAN, reductions=["mean"], with_weights=False))
def test_sum_by_non_zero_weights_of_ones_is_the_mean(
    device: ml.Device, compute_dtype: str, case: Case
) -> None:
    case = case.in_dtype(compute_dtype)
    ones = case.with_arrays(weights=np.ones_like(case.arrays["predictions"]))
    by_weights = {"reduction": "sum_by_non_zero_weights"}
    mean = case.results(device)
    assert_same_bits(case.with_properties(**by_weights).results(device), mean)
    assert_same_bits(ones.with_properties(**by_weights).results(device), ones.results(device))
    bound = case.bounds(compute_dtype)
    assert_all_within(ones.results(device), mean, bound, bound)


@searched
@given(case=cases(names=["softmax_cross_entropy"]), shift=st.integers(-1000, 1000))
def test_softmax_does_not_feel_a_shift_of_its_logits(
    device: ml.Device, compute_dtype: str, case: Case, shift: int
) -> None:
    y = np.round(case.arrays["predictions"] * 64) / 64  # so that the shift is exact in float32
    case = case.with_arrays(predictions=y).in_dtype(compute_dtype)
    shifted = case.with_arrays(predictions=(y + shift).astype(compute_dtype))
    assert (shifted.arrays["predictions"].astype(np.float64) - shift == y).all()
    bound = case.bounds(compute_dtype)
    assert_all_within(shifted.results(device), case.results(device), bound, bound)


@searched
@given(case=cases())
def test_fused_and_separate_calls_give_the_same_bits(
    device: ml.Device, dtype: str, case: Case
) -> None:
    case = case.in_dtype(dtype)
    separate = case.results(device)
    common = {"loss_type": case.loss_type, "device": device, **case.properties}
    for wrt in WRT:
        loss, gradient = ml.loss_and_gradient(**case.arrays, **common, wrt=wrt)
        fused = {"loss": np.asarray(loss), wrt: gradient}
        assert_same_bits(fused, {key: separate[key] for key in fused})


@searched
@given(case=cases(reductions=["none", "sum"]), at=st.integers(0, 4))
def test_a_split_batch_gives_what_the_whole_batch_gives(
    device: ml.Device, compute_dtype: str, case: Case, at: int
) -> None:
    case = case.in_dtype(compute_dtype)
    n = len(case.arrays["predictions"])
    whole, bound = case.results(device), case.bounds(compute_dtype)
    parts = []
    for images in (slice(0, at), slice(at, n)):
        arrays = {k: a if a is None or a.ndim == 0 else a[images] for k, a in case.arrays.items()}
        parts.append(case.with_arrays(**arrays).results(device))
    joined = {key: np.concatenate([p[key] for p in parts]) for key in whole if whole[key].ndim}
    if whole["loss"].ndim == 0:
        joined["loss"] = parts[0]["loss"].astype(np.float64) + parts[1]["loss"]
    assert_all_within(whole, joined, bound, bound)


@searched
@given(case=cases())
def test_float32_agrees_with_float64(device: ml.Device, case: Case) -> None:
    supported, reason = device.supports("float64")
    if not supported:
        pytest.skip(reason)
    exact = case.in_dtype("float64").results(device)
    bounds = case.bounds("float32"), case.bounds("float64")
    assert_all_within(case.in_dtype("float32").results(device), exact, *bounds)


@searched
@given(case=cases())
def test_float16_is_float32_rounded_once(device: ml.Device, case: Case) -> None:
    single = case.in_dtype("float32").results(device)
    with np.errstate(over="ignore"):
        rounded = {wrt: single[wrt].astype(np.float16) for wrt in WRT}
    expected = {"loss": single["loss"], **rounded}
    assert_same_bits(case.in_dtype("float16").results(device), expected)


def odd_layouts(array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The same values in memory of every kind."""
    yield "read-only", read_only(array.copy())
    yield "Fortran order", np.asfortranarray(array)
    yield "byte-swapped", array.astype(array.dtype.newbyteorder())
    yield "every third", spread(array)
    yield "backwards", np.ascontiguousarray(array[..., ::-1])[..., ::-1]
    for offset in (1, array.itemsize, 4 * array.itemsize):
        memory = np.zeros(array.nbytes + offset, np.uint8)
        moved = memory[offset:].view(array.dtype).reshape(array.shape)
        moved[...] = array
        yield f"{offset} bytes further", moved


def read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def spread(array: np.ndarray) -> np.ndarray:
    memory = np.full((*array.shape[:-1], 3 * array.shape[-1]), np.nan, array.dtype)
    memory[..., ::3] = array
    return memory[..., ::3]


@searched
@given(case=cases())
def test_memory_layout_changes_no_bit_and_inputs_stay_as_they_are(
    device: ml.Device, dtype: str, case: Case
) -> None:
    case = case.in_dtype(dtype)
    expected = case.results(device)
    with_axes = {k: a for k, a in case.arrays.items() if a is not None and a.ndim > 0}
    for layouts in zip(*(odd_layouts(array) for array in with_axes.values()), strict=True):
        arrays = dict(zip(with_axes, (array for _, array in layouts), strict=True))
        assert_same_bits(case.with_arrays(**arrays).results(device), expected)
        for key, array in arrays.items():
            np.testing.assert_array_equal(array, with_axes[key])


@searched
@given(case=cases(with_weights=True), seed=st.integers(0, 100))
def test_values_without_weight_change_no_bit(
    device: ml.Device, dtype: str, case: Case, seed: int
) -> None:
    """Where channels are coupled, those of a pixel that has no weight at all."""
    case = case.in_dtype(dtype)
    y, v = case.arrays["predictions"], case.arrays["weights"]
    without = np.broadcast_to(v == 0, y.shape)
    if case.loss_type in ("softmax_cross_entropy", "cosine_distance"):
        without = without & without.all(axis=-1, keepdims=True)
    poison = np.random.default_rng(seed).choice([np.nan, np.inf, -np.inf, 0, -1, 60000], y.shape)
    poisoned = case.with_arrays(
        predictions=np.where(without, poison, y).astype(dtype),
        labels=np.where(without, poison, case.arrays["labels"]).astype(dtype),
    )
    results = poisoned.results(device)
    assert_same_bits(results, case.results(device))
    for wrt in WRT:
        assert not results[wrt][without].any()


# Threads are the CPU engine's.
@pytest.mark.parametrize("device", CPU, ids=["CPU"], indirect=True, scope="session")
@pytest.mark.parametrize("name", NAMES)
def test_number_of_threads_changes_no_bit(device: ml.Device, name: str, dtype: str) -> None:
    shape = (5, 41, 31, 37)
    per_pixel = losses.LOSSES[name].per_pixel
    rng = np.random.default_rng(0)
    y, t = losses.LOSSES[name].inputs(rng, shape)
    weights = rng.uniform(0.5, 2, (*shape[:3], 1 if per_pixel else shape[3]))
    before = ml.get_num_threads()
    try:
        for reduction in ["sum"] if per_pixel else REDUCTIONS:
            for across in (False, True):
                arrays = {
                    "predictions": y,
                    "labels": t,
                    "weights": weights,
                    "source_gradient": None,
                }
                properties = {"reduction": reduction, "reduce_across_batch": across}
                case = Case(name, arrays, properties).in_dtype(dtype)
                results = []
                for threads in (1, 2, 3, 7, 2):
                    ml.set_num_threads(threads)
                    assert ml.get_num_threads() == threads
                    results.append(case.results(device))
                for other in results[1:]:
                    assert_same_bits(other, results[0])
    finally:
        ml.set_num_threads(before)
