"""One argument of one call against one hostile object, and what was wrong with how it went.

Run as a program, this prints each case before it is run, so that the last one printed is the one
that crashed: `python hostile_attack.py GROUP [NUMBER OF CASES TO LEAVE OUT]`.
"""

from __future__ import annotations

import faulthandler
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from hostile import Entry, Scene, catalogue
from hostile_calls import GROUPS, Call, settings

PLAIN_WORDS = (TypeError, ValueError, RuntimeError, BufferError, IndexError)


def copied(value: Any) -> Any:
    """What an argument is at this moment."""
    if isinstance(value, memoryview):
        try:
            return np.array(value)
        except ValueError:  # released
            return None
    return value.copy() if isinstance(value, (np.ndarray, list)) else value


def parts(result: Any) -> list[Any]:
    """A result as something that compares: the numbers, or what says what it is."""
    if isinstance(result, (tuple, list)):
        return [part for item in result for part in parts(item)]
    if isinstance(result, np.ndarray):
        result = np.ndarray.view(result, np.ndarray)  # what a subclass says of itself is not asked
    if isinstance(result, np.ndarray) and result.dtype == object:
        return [result.tolist()]
    if isinstance(result, (np.ndarray, np.generic)):
        return [(np.shape(result), result.dtype.str, result.tobytes())]
    plain = isinstance(result, (bool, int, float, str, bytes))
    return [result if plain else type(result).__name__]


def outcome(call: Call, arguments: dict[str, Any]) -> tuple[Any, BaseException | None]:
    try:
        return call.call(**arguments), None
    except BaseException as error:
        return None, error


def attack(call: Call, argument: str, entry: Entry) -> str | None:
    """What is wrong with how the call took it, if anything."""
    arguments = call.arguments()
    scene = Scene(arguments[argument], [v for k, v in arguments.items() if k != argument],
                  again=lambda: call.call(**call.arguments()))  # fmt: skip
    scene.error = entry.raises("the user's own") if entry.raises else UserSaysSo("no")
    hostile = entry.make(scene)
    scene.asked = 0
    before = {k: copied(v) for k, v in arguments.items() if k != argument}
    result, error = outcome(call, {**arguments, argument: hostile})
    if error is not None:
        complaint = refused(call, argument, entry, scene, error)
        return complaint or untouched(before, arguments, entry)
    if entry.raises and scene.asked and not is_swallowed_by_numpy(entry):
        return "what user code raised is lost, and there is a result"
    if entry.acts:
        after = {k: copied(arguments[k]) for k in before}
        right = [result_of_twin(call, argument, entry, others) for others in (before, after)]
        return None if parts(result) in right else "a result of other operands"
    if entry.is_array and isinstance(scene.value, (np.ndarray, memoryview, list, float)):
        return taken(call, argument, entry, scene, before, result)
    return None


class UserSaysSo(Exception):
    """What the object inside an answer raises."""


def result_of_twin(call: Call, argument: str, entry: Entry, others: dict[str, Any]) -> Any:
    """What the call makes of the operands as they are, and an object that does nothing."""
    assert entry.twin is not None
    fresh = call.arguments()
    twin = entry.twin(Scene(fresh[argument]))
    kept = {k: v for k, v in others.items() if isinstance(v, (np.ndarray, list))}
    return parts(outcome(call, {**fresh, **kept, argument: twin})[0])


def is_destination(argument: str) -> bool:
    return "out" in argument or "destination" in argument


def taken(
    call: Call, argument: str, entry: Entry, scene: Scene, before: dict[str, Any], result: Any
) -> str | None:
    """Whether it was right to take an odd array, or none at all, and to compute this with it."""
    if is_destination(argument) or argument == "data":  # memory to write, or bytes of any kind
        return None
    if entry.means is None:
        takes_numbers = np.ndim(scene.value) == 0 or argument in ("source_gradient", "weights")
        is_number = entry.may_be_a_number and takes_numbers
        return None if is_number else "taken for numbers"
    fresh = call.arguments()
    plain = entry.means(scene)
    value = plain.item() if plain.ndim == 0 and np.ndim(scene.value) == 0 else plain
    right, error = outcome(call, {**fresh, argument: value})
    return (
        None if error is not None or parts(right) == parts(result) else "a result of other numbers"
    )


def refused(
    call: Call, argument: str, entry: Entry, scene: Scene, error: BaseException
) -> str | None:
    words = f"{type(error).__name__}: {str(error)[:200]!r}" if type(error) is not UserSaysSo else ""
    if error is scene.error:
        return None
    if isinstance(error, OverflowError) and entry.protocol:
        return None  # Python's own, of a slot that answers with too large a number
    if isinstance(error, MemoryError) and call.name == "MPSImageBatch.from_array":
        return None  # so many images were asked for
    if not isinstance(error, PLAIN_WORDS):
        return f"raised {words}"
    if "Unable to cast" in words or "error set" in words or "incompatible function" in words:
        return f"raised {words}"
    if entry.raises and scene.asked and not is_swallowed_by_numpy(entry):
        return f"what user code raised became {words}"
    if type(error) is TypeError and not is_named(call, str(error)):
        return f"does not name {argument!r}: {words}"
    return None


def is_named(call: Call, words: str) -> bool:
    """Ours name an argument; Python has words of its own for a lying slot, NumPy for a dtype."""
    pythons = ("returned non-", "cannot be interpreted as an integer", "data type")
    if call.name.endswith(".__array__"):
        return True  # NumPy's protocol, in its words
    is_pythons = words.startswith("__") or any(part in words for part in pythons)
    return is_pythons or any(name in words for name in call.arguments())


def is_swallowed_by_numpy(entry: Entry) -> bool:
    """NumPy takes what raises while it looks for a sequence for a plain object, and so may we."""
    if entry.protocol is None or entry.protocol.name in ("__buffer__", "__float__", "__index__"):
        return False
    scene = Scene(np.ones(2, np.float32))
    scene.error = entry.raises("the user's own") if entry.raises else None
    try:
        np.asarray(entry.make(scene))
    except BaseException as error:
        return error is not scene.error
    return scene.asked > 0


def untouched(before: dict[str, Any], arguments: dict[str, Any], entry: Entry) -> str | None:
    """A call that was refused has written nothing."""
    if entry.acts:
        return None
    for name, value in before.items():
        if (
            isinstance(value, np.ndarray)
            and value.tobytes() != np.asarray(arguments[name]).tobytes()
        ):
            return f"refused, and {name} was written"
    return None


# What every variant of a call takes alike is attacked in the first.
ALIKE = {*settings(), "wrt", "command_buffer", "allocator"}


def cases(group: str) -> Iterator[tuple[Call, str, Entry]]:
    entries, seen = list(catalogue()), set()
    for call in GROUPS[group]():
        arguments = call.arguments()
        for argument in arguments:
            if (call.name, argument) in seen and argument in ALIKE:
                continue
            seen.add((call.name, argument))
            has_operands = any(
                np.ndim(value) or isinstance(value, (memoryview, bytearray))
                for value in arguments.values()
                if not isinstance(value, str)
            )
            for entry in entries:
                if has_operands or not entry.needs_others:
                    yield call, argument, entry


def run(group: str, first: int) -> None:
    for number, (call, argument, entry) in enumerate(cases(group), 1):
        if number > first:
            case = f"{call}, {argument}: {entry.name}"
            print(f"{number}\t{case}", flush=True)
            complaint = attack(call, argument, entry)
            if complaint:
                print(f"FAULT\t{case}: {complaint}", flush=True)
    print("DONE", flush=True)


if __name__ == "__main__":
    faulthandler.enable()
    warnings.simplefilter("ignore")
    run(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0)
