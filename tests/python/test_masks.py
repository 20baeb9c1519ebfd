"""Masks and units are never dropped, wherever they are: they are refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import mpsnn_loss as ml
import numpy as np
import pytest
from operands import MSE, OPERANDS, SOFTMAX, AsArray, Y, arguments, each_function, operands_of, same


class Masked(np.ndarray):
    """As astropy's: a subclass of arrays that is not NumPy's masked array."""

    mask = np.ones(Y.shape, bool)


class Metre:
    """A unit is an object; a name of one, as files have it, is only said of their numbers."""


class WithUnit(np.ndarray):
    """As astropy's Quantity."""

    unit = Metre()


def masks(a: np.ndarray) -> Iterator[tuple[str, Any]]:
    masked = np.ma.masked_array(a, np.arange(a.size).reshape(a.shape) == 0)
    yield "masked array", masked
    yield "list of masked rows", list(masked)
    yield "tuple of masked rows", tuple(masked)
    yield "list of lists with a masked item", [list(row) for row in masked]
    yield "__array__ that answers a masked array", AsArray(lambda: masked)
    yield "list of objects with masked arrays", [AsArray(lambda row=row: row) for row in masked]
    yield "an object of masked rows inside a list", [np.asarray(a)[0], masked[0]]
    if a.ndim == 2 and a.shape[0] == 2:
        yield "masked, masked", [np.ma.masked, np.ma.masked]


def units(a: np.ndarray) -> Iterator[tuple[str, Any]]:
    yield "another library's mask", a.view(Masked)
    yield "a unit", a.view(WithUnit)
    yield "rows with a unit", [row.view(WithUnit) for row in a]
    yield "__array__ that answers a unit", AsArray(lambda: a.view(WithUnit))
    try:
        import astropy.units
        from astropy.utils.masked import Masked as OfAstropy
    except ImportError:
        pass
    else:
        yield "astropy: Masked", OfAstropy(a, mask=a > 0.3)
        yield "astropy: Masked rows", list(OfAstropy(a, mask=a > 0.3))
        yield "astropy: Quantity", a * astropy.units.m
        yield "astropy: Masked Quantity", OfAstropy(a * astropy.units.m, mask=a > 0.3)
    try:
        import pint
    except ImportError:
        pass
    else:
        yield "pint: Quantity", a * pint.UnitRegistry().metre
    try:
        import dask.array
    except ImportError:
        pass
    else:
        masked = np.ma.masked_array(a, a > 0.3)
        yield "dask: masked chunks", dask.array.from_array(masked)


def refusals(function: Any, candidates: Callable[[np.ndarray], Any]) -> list[str]:
    """Those that are not refused by name."""
    taken = []
    for name in operands_of(function):
        for what, value in candidates(arguments(function)[name]):
            try:
                function(**arguments(function) | {name: value})
                taken.append(f"{name}: {what}")
            except (TypeError, ValueError) as error:
                if name not in str(error):
                    taken.append(f"{name}: {what}: {error}")
    return taken


@each_function
def test_masks_are_refused_one_level_down(function: Any) -> None:
    assert refusals(function, masks) == []


@pytest.mark.filterwarnings("ignore::UserWarning")
@each_function
def test_units_and_masks_of_other_libraries_are_refused(function: Any) -> None:
    assert refusals(function, units) == []


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "name", ["weight", "label_smoothing", "epsilon", "delta", "source_gradient"]
)
def test_a_masked_scalar_is_no_number(name: str) -> None:
    for value in (np.ma.masked, np.ma.masked_array(0.5, True), AsArray(lambda: np.ma.masked)):
        with pytest.raises(TypeError, match=name):
            pytest.fail(str(ml.loss_gradient(Y, Y, MSE, **{name: value})))


def test_masked_class_indices_are_refused() -> None:
    for labels in (np.ma.masked_array([0, 1], [0, 1]), [np.ma.masked, 1], [0, np.ma.masked],
                   AsArray(lambda: np.ma.masked_array([0, 1], [0, 1]))):  # fmt: skip
        with pytest.raises((TypeError, ValueError), match="labels"):
            pytest.fail(str(ml.loss(Y, labels, SOFTMAX)))


def test_a_masked_netcdf_variable_is_refused(tmp_path: Any) -> None:
    netcdf = pytest.importorskip("netCDF4", reason="netCDF4 is not installed")
    with netcdf.Dataset(tmp_path / "a.nc", "w") as dataset:
        for axis, extent in zip("nc", Y.shape, strict=True):
            dataset.createDimension(axis, extent)
        variable = dataset.createVariable("y", "f4", ("n", "c"), fill_value=np.float32(-1))
        variable[:] = np.ma.masked_array(Y, Y > 0.3)
        for name in OPERANDS:
            with pytest.raises(TypeError, match=name):
                pytest.fail(str(ml.loss_gradient(**arguments(ml.loss_gradient) | {name: variable})))


def test_an_xarray_of_plain_numbers_is_taken() -> None:
    xarray = pytest.importorskip("xarray", reason="xarray is not installed")
    given = arguments(ml.loss_gradient)
    wrapped = {k: xarray.DataArray(given[k]) for k in OPERANDS}
    assert same(ml.loss_gradient(**given | wrapped), ml.loss_gradient(**given))
