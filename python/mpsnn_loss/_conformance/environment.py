"""The machine that a run was made on."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import mpsnn_loss as ml
from mpsnn_loss._conformance import objective_c as objc

# MTLGPUFamily: Apple 1 to 10, Mac 1 and 2, Common 1 to 3, Metal 3 and 4.
FAMILIES = [*range(1001, 1011), 2001, 2002, 3001, 3002, 3003, 5001, 5002]


def describe(device: ml.Device) -> dict[str, Any]:
    return {
        "device": {"name": device.name, "kind": device.kind, **gpu(device)},
        "machine": machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "package": ml.build_info(),
    }


def machine() -> dict[str, Any]:
    facts: dict[str, Any] = {
        "system": platform.system(),
        "release": platform.release(),
        "architecture": platform.machine(),
    }
    if sys.platform == "darwin":
        facts["os_version"] = output("sw_vers", "-productVersion")
        facts["os_build"] = output("sw_vers", "-buildVersion")
        for fact, name in {
            "chip": "machdep.cpu.brand_string",
            "model": "hw.model",
            "memory_bytes": "hw.memsize",
            "is_virtual_machine": "kern.hv_vmm_present",
            "runs_under_rosetta": "sysctl.proc_translated",
        }.items():
            facts[fact] = output("sysctl", "-n", name)
    else:
        facts["chip"] = processor()
    return facts


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


def gpu(device: ml.Device) -> dict[str, Any]:
    """Facts about a Metal device, none of the CPU engine."""
    pointer = device.objc_pointer
    if pointer is None:
        return {}
    facts: dict[str, Any] = {}
    try:
        for name in ("registryID", "recommendedMaxWorkingSetSize", "maxBufferLength"):
            if objc.responds(pointer, name):
                facts[name] = objc.send(pointer, name)
        for name in ("hasUnifiedMemory", "isLowPower", "isHeadless", "isRemovable"):
            if objc.responds(pointer, name):
                facts[name] = objc.flag(pointer, name)
        if objc.responds(pointer, "supportsFamily:"):
            facts["families"] = [f for f in FAMILIES if objc.supports_family(pointer, f)]
        facts["class"] = objc.class_name_of(pointer)  # names a paravirtual device
    except (LookupError, OSError) as error:
        facts["unknown"] = str(error)
    return facts
