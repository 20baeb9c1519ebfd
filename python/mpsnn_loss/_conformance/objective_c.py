"""Messages to Objective-C objects through ctypes: what the package does not offer.

Objects are integers, as `objc_pointer` gives them. Nothing is checked: a wrong message ends the
process, so this is for risky cases only.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from mpsnn_loss import _core

Word = ctypes.c_size_t


class Offset(ctypes.Structure):
    """An MPSOffset."""

    x: int
    y: int
    z: int
    _fields_ = [(name, ctypes.c_int64) for name in "xyz"]


class Size(ctypes.Structure):
    """An MTLSize."""

    width: int
    height: int
    depth: int
    _fields_ = [(name, ctypes.c_uint64) for name in ("width", "height", "depth")]


class Region(ctypes.Structure):
    """An MTLRegion: origin x, y, z, and size width, height, depth."""

    numbers: ctypes.Array[ctypes.c_uint64]
    _fields_ = [("numbers", ctypes.c_uint64 * 6)]


LIBRARY = "/usr/lib/libobjc.A.dylib" if sys.platform == "darwin" else "libobjc.so.4"


@lru_cache(maxsize=1)
def runtime() -> ctypes.CDLL:
    """The Objective-C runtime: Apple's, or gcc's. OSError where there is none."""
    library = ctypes.CDLL(LIBRARY)
    library.sel_registerName.restype = library.objc_getClass.restype = Word
    library.sel_registerName.argtypes = library.objc_getClass.argtypes = [ctypes.c_char_p]
    library.object_getClassName.restype = ctypes.c_char_p
    library.object_getClassName.argtypes = [Word]
    if sys.platform != "darwin":
        library.objc_msg_lookup.restype = Word
        library.objc_msg_lookup.argtypes = [Word, Word]
    return library


def selector(name: str) -> int:
    return int(runtime().sel_registerName(name.encode()))


def class_named(name: str) -> int:
    found = int(runtime().objc_getClass(name.encode()) or 0)
    if found == 0:
        raise LookupError(f"there is no class {name}")
    return found


def class_name_of(receiver: int) -> str:
    name: bytes = runtime().object_getClassName(receiver)
    return name.decode()


def method(receiver: int, name: str, returns: Any) -> int:
    """The address to call: the sender of messages, or with gcc's runtime the method itself."""
    if sys.platform == "darwin":
        # On Intel another sender returns the structures that do not fit into two registers.
        is_large = isinstance(returns, type(ctypes.Structure)) and ctypes.sizeof(returns) > 16
        on_stack = is_large and platform.machine() == "x86_64"
        sender = runtime().objc_msgSend_stret if on_stack else runtime().objc_msgSend
        return int(ctypes.cast(sender, ctypes.c_void_p).value or 0)
    return int(runtime().objc_msg_lookup(receiver, selector(name)))


def send(receiver: int, name: str, *arguments: Any, returns: Any = Word) -> Any:
    """Sends a message whose arguments are integers, pointers and ctypes values."""
    if receiver == 0:
        raise LookupError(f"{name} was sent to nil")
    if name != "respondsToSelector:" and not responds(receiver, name):
        raise LookupError(f"{class_name_of(receiver)} does not respond to {name}")
    types = [_type_of(each) for each in arguments]
    function = ctypes.CFUNCTYPE(returns, Word, Word, *types)(method(receiver, name, returns))
    return function(receiver, selector(name), *arguments)


def _type_of(argument: Any) -> Any:
    if isinstance(argument, (ctypes.Structure, ctypes.c_float)):
        return type(argument)
    return Word if isinstance(argument, int) else ctypes.c_void_p


def responds(receiver: int, name: str) -> bool:
    return bool(send(receiver, "respondsToSelector:", selector(name), returns=ctypes.c_byte))


def flag(receiver: int, name: str) -> bool:
    return bool(send(receiver, name, returns=ctypes.c_byte))


def text(receiver: int) -> str:
    """The characters of an NSString."""
    characters: bytes = send(receiver, "UTF8String", returns=ctypes.c_char_p)
    return characters.decode()


def array_of(objects: list[int]) -> int:
    """An NSArray, autoreleased."""
    items = (Word * len(objects))(*objects)
    found: int = send(class_named("NSArray"), "arrayWithObjects:count:", items, len(objects))
    return found


@contextmanager
def autorelease_pool() -> Iterator[None]:
    pool = send(send(class_named("NSAutoreleasePool"), "alloc"), "init")
    try:
        yield
    finally:
        send(pool, "drain")


def description(receiver: int) -> str:
    return "nil" if receiver == 0 else text(send(receiver, "description"))


def error_of_buffer(buffer: int) -> dict[str, Any]:
    """What the NSError of a command buffer says."""
    with autorelease_pool():
        error = send(buffer, "error")
        if error == 0:
            return {"error": "nil"}
        return {
            "domain": text(send(error, "domain")),
            "code": send(error, "code", returns=ctypes.c_ssize_t),
            "userInfo": description(send(error, "userInfo")),
        }


# --- What the extension links ---


def region_constant(name: str) -> list[int]:
    """An MTLRegion: origin x, y, z, size width, height, depth."""
    extension = ctypes.CDLL(_core.__file__)
    try:
        return list(Region.in_dll(extension, name).numbers)
    except ValueError as error:
        raise LookupError(str(error)) from None


def function(name: str, returns: Any, *types: Any) -> Any:
    """A function of C."""
    try:
        address = getattr(ctypes.CDLL(_core.__file__), name)
    except AttributeError:
        raise LookupError(f"there is no function {name}") from None
    address.restype, address.argtypes = returns, types
    return address


def supports_family(device: int, family: int) -> bool:
    return bool(send(device, "supportsFamily:", family, returns=ctypes.c_byte))
