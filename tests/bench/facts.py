"""The machine and the package, as they stand beside the results."""

from __future__ import annotations

import io
import os
import platform
import statistics
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import mpsnn_loss as ml

CACHE = Path("/sys/devices/system/cpu/cpu0/cache")
IMPORT = """import time, numpy
start = time.perf_counter()
import mpsnn_loss
print(time.perf_counter() - start)"""


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    found = dict(
        tuple(part.strip() for part in line.split(":", 1)) for line in lines if ":" in line
    )
    name = found.get("model name", platform.processor())
    return f"{name}, family {found.get('cpu family', '?')} model {found.get('model', '?')}"


def last_level_cache() -> int:
    """Bytes, or 32 MiB where the system does not say."""
    sizes = [0]
    for file in CACHE.glob("index*/size"):
        sizes.append(int(file.read_text().strip().rstrip("K")) * 1024)
    return max(sizes) or 32 << 20


def import_seconds(runs: int) -> float:
    """The import of the package after NumPy's, each time in a new process."""
    command = [sys.executable, "-c", IMPORT]
    outputs = [subprocess.run(command, check=True, capture_output=True) for _ in range(runs)]
    return statistics.median(float(output.stdout) for output in outputs)


def wheel_bytes() -> int:
    """The size of the installed files, packed as a wheel packs them."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as wheel:
        for file in metadata.files("mpsnn-loss") or []:
            path = Path(str(file.locate()))
            if path.suffix != ".pyc" and path.is_file():
                wheel.write(path, str(file))
    return packed.getbuffer().nbytes


def machine() -> dict[str, Any]:
    build = ml.build_info()
    return {
        "processor": processor(),
        "processors": os.cpu_count(),
        "last_level_cache": last_level_cache(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "compiler": build["compiler"],
        "instruction_set": build["instruction_set_in_use"],
    }
