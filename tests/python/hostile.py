"""The catalogue of hostile objects: those that lie, raise, re-enter, resize or release.

An entry is a protocol that Python or NumPy asks an object by, what the object is besides, and what
it does when it is asked. `catalogue()` makes all of them, `hostile_calls.py` has the calls that
they are passed to, `hostile_attack.py` judges how it went. A new protocol is one row here.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hostile_arrays import NO_ARRAYS, NUMBERS_ALONE, ODD_ARRAYS


class UsersError(Exception):
    """An exception that only user code can have raised."""


@dataclass
class Scene:
    """One attack: the value that would be right, what else the call uses, and what has happened."""

    value: Any
    others: list[Any] = field(default_factory=list)  # the other arguments, which may be changed
    again: Callable[[], Any] = lambda: None  # the same call with arguments that are right
    error: BaseException | None = None  # what the object raises
    asked: int = 0  # how often the object was asked
    kept: list[Any] = field(default_factory=list)
    listed: list[Any] | None = None  # the items of the value, as they were at first

    @property
    def array(self) -> np.ndarray:
        return np.asarray(self.value)

    @property
    def numbers(self) -> np.ndarray:
        """The array, where it has numbers."""
        array = self.array
        return array if array.dtype.kind in "fiub" else np.ones(3, np.float32)

    def victims(self) -> Iterator[np.ndarray]:
        """Not the array of a memoryview: NumPy frees it under all who hold one (refcheck=False)."""
        for other in self.others:
            if isinstance(other, np.ndarray) and other.ndim:
                yield other


# --- What an object does when it is asked ---


def reshape(scene: Scene) -> None:
    for array in scene.victims():
        attempt(lambda a=array: setattr(a, "shape", (1,) * 20 + (a.size,)))


def grow(scene: Scene) -> None:
    """NumPy moves the elements; the memory that they had is used for something else."""
    for array in scene.victims():
        count, nbytes = array.size, array.nbytes
        attempt(lambda a=array: a.resize(a.size + 5000, refcheck=False))
        if array.size != count:
            scene.kept += [np.full(nbytes, 0x41, np.uint8) for _ in range(8)]


def shrink(scene: Scene) -> None:
    for array in scene.victims():
        attempt(lambda a=array: a.resize(0, refcheck=False))
        scene.kept += [np.full(64, 0x41, np.uint8) for _ in range(8)]


def retype(scene: Scene) -> None:
    for array in scene.victims():
        attempt(lambda a=array: setattr(a, "dtype", np.dtype(f"V{a.dtype.itemsize}")))


def widen(scene: Scene) -> None:
    for array in scene.victims():
        if array.ndim:
            attempt(lambda a=array: setattr(a, "dtype", np.dtype(np.float64)))


def restride(scene: Scene) -> None:
    for array in scene.victims():
        attempt(lambda a=array: setattr(a, "strides", (0,) * a.ndim))


def freeze(scene: Scene) -> None:
    for array in scene.victims():
        attempt(lambda a=array: a.setflags(write=False))


def release(scene: Scene) -> None:
    for other in scene.others:
        if isinstance(other, memoryview):
            attempt(other.release)


def empty_lists(scene: Scene) -> None:
    for other in scene.others:
        if isinstance(other, (list, bytearray)):
            attempt(other.clear)


def re_enter(scene: Scene) -> None:
    for _ in range(3):
        scene.again()


class Garbage:
    """A cycle whose finaliser changes the other arguments."""

    def __init__(self, scene: Scene) -> None:
        self.itself, self.scene = self, scene

    def __del__(self) -> None:
        grow(self.scene)


def collect(scene: Scene) -> None:
    Garbage(scene)
    gc.collect(0)


def attempt(change: Callable[[], Any]) -> None:
    """What NumPy does not allow, because memory is exported, is not the subject here."""
    with suppress(ValueError, TypeError, AttributeError, BufferError):
        change()


ACTIONS = (
    reshape, grow, shrink, retype, widen, restride, freeze, release, empty_lists, re_enter, collect
)  # fmt: skip
ERRORS: tuple[type[BaseException], ...] = (
    KeyboardInterrupt, SystemExit, MemoryError, UsersError
)  # fmt: skip
# What Python and NumPy raise themselves where a conversion fails, and we say in other words.
OF_CONVERSIONS: tuple[type[BaseException], ...] = (TypeError, ValueError, OverflowError)


# --- How an object is asked: a method or a property of its class, and the honest answer ---


@dataclass(frozen=True)
class Protocol:
    name: str
    answer: Callable[[Scene], Any]
    is_property: bool = False
    bases: tuple[type, ...] = (object,)  # one class each
    more: dict[str, Any] = field(default_factory=dict)  # what the class has besides


def number(scene: Scene) -> Any:
    """The value, or the first element of it."""
    try:
        return scene.value if isinstance(scene.value, (int, float)) else scene.array.flat[0].item()
    except (IndexError, AttributeError):
        return 0


def whole(scene: Scene) -> int:
    try:
        return int(number(scene))
    except (TypeError, ValueError):
        return 0


def real(scene: Scene) -> float:
    try:
        return float(number(scene))
    except (TypeError, ValueError):
        return 0.0


def items(scene: Scene) -> list[Any]:
    if scene.listed is None:
        try:
            scene.listed = list(scene.value)
        except (TypeError, NotImplementedError):
            scene.listed = [scene.value]
    return scene.listed


def exported(scene: Scene) -> memoryview:
    is_buffer = isinstance(scene.value, (bytes, bytearray, memoryview, np.ndarray))
    return memoryview(scene.value if is_buffer else scene.array)


def interface(scene: Scene) -> Any:
    scene.kept.append(scene.array)
    return scene.kept[-1].__array_interface__


def struct(scene: Scene) -> Any:
    scene.kept.append(scene.array)
    return scene.kept[-1].__array_struct__


def item_in_turn(scene: Scene) -> Any:
    """The next item; and IndexError at last, for whoever iterates by index."""
    if scene.asked > len(items(scene)):
        raise IndexError(scene.asked)
    return items(scene)[scene.asked - 1]


class OnHost:
    """The half of DLPack that says where; and an object with axes, which yields its array."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


class WithArray:
    scene: Scene

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self.scene.array


PROTOCOLS: tuple[Protocol, ...] = (
    Protocol("__array__", lambda s: s.array),
    Protocol("__array_interface__", interface, is_property=True),
    Protocol("__array_struct__", struct, is_property=True),
    Protocol("__dlpack__", lambda s: s.array.__dlpack__(), bases=(OnHost,)),
    Protocol("__dlpack_device__", lambda s: (1, 0),
             more={"__dlpack__": lambda self, **_: self.scene.array.__dlpack__()}),
    Protocol("__index__", whole, bases=(object, WithArray)),
    Protocol("__int__", whole),
    Protocol("__float__", real, bases=(object, WithArray, float, str)),
    Protocol("__complex__", lambda s: complex(real(s))),
    Protocol("__bool__", lambda s: bool(real(s))),
    Protocol("__len__", lambda s: len(items(s)),
             more={"__getitem__": lambda self, i: items(self.scene)[i]}),
    Protocol("__getitem__", lambda s: item_in_turn(s),
             more={"__len__": lambda self: len(items(self.scene))}),
    Protocol("__iter__", lambda s: iter(items(s)),
             more={"__len__": lambda self: len(items(self.scene)),
                   "__getitem__": lambda self, i: items(self.scene)[i]}),
    Protocol("ndim", lambda s: s.array.ndim, is_property=True, bases=(WithArray, np.ndarray)),
    Protocol("shape", lambda s: s.array.shape, is_property=True, bases=(WithArray, np.ndarray)),
    Protocol("dtype", lambda s: s.array.dtype, is_property=True, bases=(WithArray, np.ndarray)),
    Protocol("strides", lambda s: s.array.strides, is_property=True, bases=(np.ndarray,)),
    Protocol("flags", lambda s: s.array.flags, is_property=True, bases=(np.ndarray,)),
    Protocol("mask", lambda s: False, is_property=True, bases=(WithArray, np.ndarray)),
    Protocol("unit", lambda s: None, is_property=True, bases=(WithArray, np.ndarray)),
    Protocol("__array_finalize__", lambda s: None, bases=(np.ndarray,)),
    Protocol("__class__", lambda s: type(s.value), is_property=True),
    Protocol("__repr__", lambda s: "hostile", bases=(object, WithArray, str, int, float)),
    Protocol("__str__", lambda s: "hostile", bases=(object, str, int, float)),
    Protocol("__eq__", lambda s: False, bases=(object, str, int),
             more={"__hash__": lambda self: 7}),
    Protocol("__hash__", lambda s: 7, bases=(object, str)),
    *([Protocol("__buffer__", exported, bases=(object, WithArray))]
      if sys.version_info >= (3, 12) else []),
)  # fmt: skip


def carry(scene: Scene, protocol: Protocol, base: type, act: Callable[[Scene], Any]) -> Any:
    """An object of a class of its own that answers with what `act` does when it is asked."""
    armed: list[bool] = []

    def asked(self: Any, *_: Any, **__: Any) -> Any:
        if not armed:  # NumPy asks while the object is made
            return protocol.answer(scene)
        scene.asked += 1
        return act(scene)

    method: Any = property(asked) if protocol.is_property else asked
    namespace = {"scene": scene, "__slots__": (), **protocol.more, protocol.name: method}
    if base is object or base in (OnHost, WithArray):
        del namespace["__slots__"]
    kind: Any = type("Hostile", (base,), namespace)
    if base is np.ndarray:
        made = np.ndarray.__new__(kind, scene.array.shape, scene.array.dtype)
        np.ndarray.__setitem__(made, ..., scene.array)
    elif base is str:
        made = kind(scene.value if isinstance(scene.value, str) else "3")
    else:
        made = kind(whole(scene)) if base is int else kind(real(scene)) if base is float else kind()
    armed.append(True)
    return made


# --- The catalogue ---

# What a slot may answer that it must not.
WRONG_ANSWERS: dict[str, Callable[[Scene], Any]] = {
    "None": lambda s: None,
    "text": lambda s: "3",
    "NotImplemented": lambda s: NotImplemented,
    "NaN": lambda s: float("nan"),
    "10**5000": lambda s: 10**5000,
    "-1": lambda s: -1,
    "a list": lambda s: [s.value],
    "an enormous shape": lambda s: (2**62, 2**62),
    "an object that raises": lambda s: carry(s, PROTOCOLS[0], object, raising),
}
ANSWERED_BY = ("__array__", "__array_interface__", "__array_struct__", "__dlpack__", "__buffer__",
               "__index__", "__float__", "__bool__", "__len__", "__iter__", "ndim", "shape",
               "dtype",
               "__class__", "__dlpack_device__", "__repr__")  # fmt: skip


def raising(scene: Scene) -> Any:
    assert scene.error is not None
    raise scene.error


@dataclass(frozen=True)
class Entry:
    """One hostile object; `means` is the array whose numbers it stands for, if it has any."""

    name: str
    make: Callable[[Scene], Any]
    raises: type[BaseException] | None = None
    acts: bool = False
    is_array: bool = False
    may_be_a_number: bool = False
    means: Callable[[Scene], Any] | None = None
    twin: Callable[[Scene], Any] | None = None  # the same object, and it does nothing
    needs_others: bool = False  # there is nothing to do where the call has no operand
    protocol: Protocol | None = None


def catalogue() -> Iterator[Entry]:
    for protocol in PROTOCOLS:
        for base in protocol.bases:
            name = f"{protocol.name} of {base.__name__}"
            converts = protocol.name in ANSWERED_BY and base is protocol.bases[0]
            for error in (*ERRORS, *(OF_CONVERSIONS if converts else ())):
                yield Entry(f"{name} raises {error.__name__}", carrying(protocol, base, raising),
                            raises=error, protocol=protocol)  # fmt: skip
            for action in ACTIONS:

                def act(s: Scene, action: Any = action, protocol: Protocol = protocol) -> Any:
                    if s.asked == 1:
                        action(s)
                    return protocol.answer(s)

                yield Entry(f"{name}: {action.__name__}", carrying(protocol, base, act), acts=True,
                            twin=carrying(protocol, base, protocol.answer),
                            needs_others=action is not re_enter)  # fmt: skip
            if protocol.name in ANSWERED_BY:
                for what, answer in WRONG_ANSWERS.items():
                    yield Entry(f"{name} answers {what}", carrying(protocol, base, answer),
                                protocol=protocol)  # fmt: skip
    for what, make in NO_ARRAYS.items():
        alone = what in NUMBERS_ALONE
        yield Entry(what, lambda s, m=make: m(s.numbers), is_array=True, may_be_a_number=alone)
        yield Entry(f"__array__ answers {what}", answering(make), is_array=True)
    for what, make in ODD_ARRAYS.items():
        yield Entry(what, lambda s, m=make: m(s.numbers), is_array=True, means=make_of(make))
        yield Entry(
            f"__array__ answers {what}", answering(make), is_array=True, means=make_of(make)
        )


def carrying(protocol: Protocol, base: type, act: Callable[[Scene], Any]) -> Any:
    return lambda scene: carry(scene, protocol, base, act)


def answering(make: Callable[[np.ndarray], Any]) -> Callable[[Scene], Any]:
    return lambda scene: carry(scene, PROTOCOLS[0], object, lambda s: make(s.numbers))


def make_of(make: Callable[[np.ndarray], Any]) -> Callable[[Scene], Any]:
    return lambda scene: np.array(make(scene.numbers))
