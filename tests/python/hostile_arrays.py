"""Objects that are no array of numbers, or not a plain one."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import numpy as np
from operands import SANITIZED


class Another(enum.IntEnum):
    """Its raw values are those of other enumerations too."""

    ZERO = 0
    ONE = 1


def unaligned(array: np.ndarray) -> np.ndarray:
    memory = np.zeros(array.nbytes + 1, np.uint8)
    moved = memory[1:].view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved


def frozen(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


def backwards(array: np.ndarray) -> np.ndarray:
    turned = (slice(None, None, -1),) * array.ndim
    return np.ascontiguousarray(array[turned])[turned]


def released(array: np.ndarray) -> memoryview:
    view = memoryview(array)
    view.release()
    return view


# The same numbers in another form: whoever takes one must compute with just these numbers.
ODD_ARRAYS: dict[str, Callable[[np.ndarray], Any]] = {
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "unaligned": unaligned,
    "negative strides": backwards,
    "Fortran order": lambda a: np.asfortranarray(a.copy()),
    "read-only": frozen,
    "long double": lambda a: a.astype(np.longdouble),
    "0-d": lambda a: np.array(a.flat[0] if a.size else 0),
    "0-d object": lambda a: np.array(a.flat[0].item() if a.size else 0, object),
    "0-d text": lambda a: np.array("3"),
    "scalar": lambda a: a.dtype.type(a.flat[0] if a.size else 0),
    "list": lambda a: a.tolist(),
    "memoryview": memoryview,
}

# No numbers at all, or numbers that mean something else: nobody may compute with them.
NO_ARRAYS: dict[str, Callable[[np.ndarray], Any]] = {
    "masked": lambda a: np.ma.masked_array(a, np.ones(a.shape, bool)),
    "masked without a mask": lambda a: np.ma.masked_array(a),
    "the masked constant": lambda a: np.ma.masked,
    "masked inside": lambda a: [np.ma.masked, np.ma.masked],
    "structured": lambda a: np.zeros(a.shape, [("x", a.dtype)]),
    "void": lambda a: np.zeros(a.shape, "V2"),
    "object": lambda a: a.astype(object),
    "complex": lambda a: a.astype(complex),
    "complex number": lambda a: 1 + 2j,
    "text": lambda a: np.full(a.shape, "3"),
    "bytes": lambda a: np.full(a.shape, b"3"),
    "dates": lambda a: np.zeros(a.shape, "M8[s]"),
    "spans": lambda a: np.zeros(a.shape, "m8[s]"),
    "ragged": lambda a: [[1.0, 2.0], [3.0]],
    "enormous": lambda a: np.broadcast_to(a.dtype.type(1), (2**40, 3)),
    "enormous and empty": lambda a: np.broadcast_to(np.float32(1), (2**60, 0)),
    "surrogates": lambda a: "\udc80\ud800",
    "NUL": lambda a: "sum\0",
    "huge int": lambda a: 10**5000,
    "negative huge int": lambda a: -(10**400),
    "released memoryview": released,
    "another enumeration": lambda a: Another.ONE,
    "type": lambda a: np.ndarray,
    "ellipsis": lambda a: ...,
}

if SANITIZED:
    del NO_ARRAYS["enormous"]

# Of these, a single one may be taken for a number by what Python's float() makes of it.
NUMBERS_ALONE = {"object", "another enumeration"}
try:
    import ml_dtypes
except ImportError:
    pass
else:
    for _name, _type in vars(ml_dtypes).items():  # bfloat16 is for the functions to say
        if isinstance(_type, type) and issubclass(_type, np.generic) and _name != "bfloat16":
            NUMBERS_ALONE.add(_name)
            NO_ARRAYS[_name] = lambda a, _type=_type: np.zeros(a.shape, _type)
