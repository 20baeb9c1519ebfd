"""The machine and the device that a run was made on.

As a module this is a child process: python -m mpsnn_loss._conformance.environment FILE. It writes
lines of JSON, each with facts that the next question might end the process before.
"""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import mpsnn_loss as ml
from mpsnn_loss._conformance import objective_c as objc
from mpsnn_loss._conformance.child import write_line
from mpsnn_loss._conformance.judging import raised_by

# MTLGPUFamily: Apple 1 to 10, Mac 1 and 2, Common 1 to 3, Metal 3 and 4.
FAMILIES = [*range(1001, 1011), 2001, 2002, 3001, 3002, 3003, 5001, 5002]
PARAVIRTUAL = "paravirtual"  # in the name of the GPU that a virtual machine shows
TRANSLATED = {"0": "native", "1": "Rosetta"}


# --- The machine: nothing here touches Metal ---


def machine() -> dict[str, Any]:
    facts: dict[str, Any] = {
        "system": platform.system(),
        "release": platform.release(),
        "architecture": platform.machine(),
        "process": "native",
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    if sys.platform == "darwin":
        facts["os_version"] = output("sw_vers", "-productVersion")
        facts["os_build"] = output("sw_vers", "-buildVersion")
        for fact, name in {
            "chip": "machdep.cpu.brand_string",
            "model": "hw.model",
            "memory_bytes": "hw.memsize",
            "is_virtual_machine": "kern.hv_vmm_present",
        }.items():
            facts[fact] = output("sysctl", "-n", name)
        # Of this process; `sysctl` as a command could be of another architecture. Intel has no
        # such name.
        facts["process"] = TRANSLATED.get(str(translated()), "native")
    else:
        facts["chip"] = processor()
    return facts


def translated() -> int:
    """sysctl.proc_translated of this process: 1 under Rosetta."""
    value, size = ctypes.c_int(0), ctypes.c_size_t(ctypes.sizeof(ctypes.c_int))
    ctypes.CDLL(None).sysctlbyname(
        b"sysctl.proc_translated", ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0)
    )
    return value.value


def output(*command: str) -> str | None:
    """What a command prints, or None where it cannot say."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def processor() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
                None)  # fmt: skip


# --- Metal ---


def gpu(pointer: int) -> dict[str, Any]:
    """Facts about an id<MTLDevice>."""
    facts: dict[str, Any] = {"class": objc.class_name_of(pointer)}
    for name in ("registryID", "recommendedMaxWorkingSetSize", "maxBufferLength"):
        if objc.responds(pointer, name):
            facts[name] = objc.send(pointer, name)
    for name in ("hasUnifiedMemory", "isLowPower", "isHeadless", "isRemovable"):
        if objc.responds(pointer, name):
            facts[name] = objc.flag(pointer, name)
    if objc.responds(pointer, "supportsFamily:"):
        facts["families"] = [f for f in FAMILIES if objc.supports_family(pointer, f)]
    return facts


def is_paravirtual(*names: str) -> bool:
    """GitHub's runners have such devices. What they do says nothing about Apple's GPUs."""
    return any(PARAVIRTUAL in name.lower() for name in names)


def known_device(pointer: int) -> dict[str, Any]:
    """What a device call answered."""
    if pointer == 0:
        return {"name": "nil"}
    name = objc.text(objc.send(pointer, "name"))
    supported = objc.function("MPSSupportsMTLDevice", ctypes.c_byte, objc.Word)(pointer)
    facts = gpu(pointer)
    return {
        "name": name,
        "MPSSupportsMTLDevice": bool(supported),
        "is_paravirtual": is_paravirtual(name, facts["class"]),
        **facts,
    }


def default_answer() -> Any:
    return known_device(objc.function("MTLCreateSystemDefaultDevice", objc.Word)())


def list_answer() -> Any:
    devices = objc.function("MTLCopyAllDevices", objc.Word)()
    count = objc.send(devices, "count") if devices else 0
    return [known_device(objc.send(devices, "objectAtIndex:", i)) for i in range(count)]


def device_calls() -> dict[str, Any]:
    """What Metal's two ways to look for devices answer; either may come up empty."""
    answers: dict[str, Any] = {}
    for name, ask in {
        "MTLCreateSystemDefaultDevice": default_answer,
        "MTLCopyAllDevices": list_answer,
    }.items():
        try:
            with objc.autorelease_pool():
                answers[name] = ask()
        except (LookupError, OSError) as error:
            answers[name] = f"not here: {error}"
    return answers


def device_facts() -> dict[str, Any]:
    """The device that the package chooses, or why it has none."""
    try:
        device = ml.default_device()
    except (RuntimeError, ValueError) as error:
        return {"device": None, "words": str(error), **raised_by(error)}
    facts: dict[str, Any] = {"name": device.name, "kind": device.kind}
    if device.objc_pointer is not None:
        try:
            facts.update(gpu(device.objc_pointer))
        except (LookupError, OSError) as error:
            facts["unknown"] = str(error)
    is_virtual = is_paravirtual(device.name, facts.get("class", ""))
    return {"device": {**facts, "is_paravirtual": is_virtual}}


def all_facts() -> Iterator[dict[str, Any]]:
    """Who asks for the CPU engine does not look for Metal: that wakes a GPU."""
    yield {"machine": machine(), "package": ml.build_info()}
    if os.environ.get("MPSNN_LOSS_DEVICE") != "cpu":
        yield {"device_calls": device_calls()}
    yield device_facts()


def main(file: str) -> int:
    with Path(file).open("a") as stream:
        for facts in all_facts():
            write_line(stream, facts)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
