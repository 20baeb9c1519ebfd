"""Every argument of every public callable against every hostile object of the catalogue.

A call ends with the right result, with what the object itself raised, or with an error of ours that
names the argument. Each group has a process of its own: a crash is one finding, and the next case
goes on.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import hostile
import hostile_attack
import hostile_calls
import mpsnn_loss as ml
import pytest

CRASHES = 10  # so many, and a group is given up


def found_in(group: str) -> list[str]:
    """What is wrong in a group, case by case."""
    program, first, faults = hostile_attack.__file__, 0, []
    for _ in range(CRASHES):
        command = [sys.executable, program, group, str(first)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        lines = ended.stdout.splitlines()
        faults += [line.split("\t", 1)[1] for line in lines if line.startswith("FAULT\t")]
        if lines and lines[-1] == "DONE":
            return faults
        number, case = [line for line in lines if line[:1].isdigit()][-1].split("\t", 1)
        faults.append(f"{case}: ended the process ({ended.returncode})\n{ended.stderr[-2000:]}")
        first = int(number)
    return faults


@pytest.mark.parametrize("group", hostile_calls.GROUPS)
def test_no_hostile_object_crashes_or_is_taken_for_something_else(group: str) -> None:
    faults = found_in(group)
    shown = "\n".join(faults[:: max(1, len(faults) // 60)])
    assert not faults, f"{len(faults)} faults, among them\n{shown}"


def attacked() -> set[tuple[str, str]]:
    calls = [call for group in hostile_calls.GROUPS.values() for call in group()]
    return {(call.name, argument) for call in calls for argument in call.arguments()}


# Methods that take what Python itself gives them, and a pointer that must be one on Metal.
NOT_ATTACKED = {"__exit__", "__eq__", "__buffer__", "__deepcopy__", "MPSImageBatch.index"}


def test_every_argument_of_the_stub_is_attacked() -> None:
    stub = ast.parse((Path(ml.__file__).parent / "_core.pyi").read_text())
    targets = attacked()
    missing = set()
    for owner in stub.body:
        members = owner.body if isinstance(owner, ast.ClassDef) else [owner]
        for member in members:
            if not isinstance(member, ast.FunctionDef) or is_property(member):
                continue
            of_class = isinstance(owner, ast.ClassDef)
            name = f"{owner.name}.{member.name}" if of_class else member.name  # type: ignore[attr-defined]
            if member.name in NOT_ATTACKED or name in NOT_ATTACKED or name.startswith("_"):
                continue
            arguments = [a.arg for a in (*member.args.posonlyargs, *member.args.args,
                                         *member.args.kwonlyargs)]  # fmt: skip
            missing |= {(name, a) for a in arguments if a not in ("self", "no_constructor")}
    assert missing - targets == set()


def is_property(member: ast.FunctionDef) -> bool:
    """Properties are attacked as they are found on the classes."""
    return any("setter" in ast.unparse(d) or "property" in ast.unparse(d)
               for d in member.decorator_list)  # fmt: skip


def test_entries_have_names_of_their_own() -> None:
    names = [entry.name for entry in hostile.catalogue()]
    assert len(set(names)) == len(names)
