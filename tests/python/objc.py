"""Messages to Objective-C objects by address, as another library in the process sends them."""

from __future__ import annotations

import ctypes
import ctypes.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_POINTER = ctypes.c_void_p


def _runtime() -> ctypes.CDLL:
    name = "/usr/lib/libobjc.A.dylib" if sys.platform == "darwin" else "libobjc.so.4"
    runtime = ctypes.CDLL(name)
    lookup = "sel_registerName" if sys.platform == "darwin" else "sel_get_any_uid"
    runtime.selector = getattr(runtime, lookup)
    for function in (runtime.selector, runtime.objc_getClass):
        function.restype, function.argtypes = _POINTER, [ctypes.c_char_p]
    if sys.platform != "darwin":
        runtime.objc_msg_lookup.restype = _POINTER
        runtime.objc_msg_lookup.argtypes = [_POINTER, _POINTER]
    return runtime


def send(receiver: int, selector: str, *arguments: int, result: type | None = _POINTER) -> int:
    """[receiver selector...] with addresses as arguments."""
    runtime = _runtime()
    name = runtime.selector(selector.encode())
    if sys.platform == "darwin":
        address = ctypes.cast(runtime.objc_msgSend, _POINTER).value
    else:
        address = runtime.objc_msg_lookup(receiver, name)
    kind = ctypes.CFUNCTYPE(result, _POINTER, _POINTER, *[_POINTER] * len(arguments))
    assert address is not None
    return kind(address)(receiver, name, *arguments)


def class_named(name: str) -> int:
    return _runtime().objc_getClass(name.encode())


@contextmanager
def autorelease_pool() -> Iterator[None]:
    pool = send(send(class_named("NSAutoreleasePool"), "alloc"), "init")
    try:
        yield
    finally:
        send(pool, "drain", result=None)


def command_buffer(queue: int) -> int:
    """A new id<MTLCommandBuffer>, retained: release it."""
    with autorelease_pool():
        return send(send(queue, "commandBuffer"), "retain")


def release(address: int) -> None:
    with autorelease_pool():
        send(address, "release", result=None)


def commit_and_wait(buffer: int) -> None:
    with autorelease_pool():
        send(buffer, "commit", result=None)
        send(buffer, "waitUntilCompleted", result=None)
