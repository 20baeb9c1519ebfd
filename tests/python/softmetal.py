"""The software double of Metal, where the package was built on it: what it found, what is alive."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable
from pathlib import Path

import mpsnn_loss as ml

# What the package keeps: devices, and for the next one-call function one queue, and kernels, which
# have padding.
KEPT = {
    "SoftmetalDevice": 8,
    "SoftmetalQueue": 1,
    "MPSNNForwardLoss": 32,
    "MPSNNLossGradient": 32,
    "MPSNNDefaultPadding": 32,
}


class Softmetal:
    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        for name in ("violations", "images_made", "slices_written", "encodes", "commits"):
            getattr(library, f"softmetal_{name}").restype = ctypes.c_size_t
        for name in ("violation_rule", "violation_text"):
            function = getattr(library, f"softmetal_{name}")
            function.restype, function.argtypes = ctypes.c_char_p, [ctypes.c_size_t]
        library.softmetal_set_fault.argtypes = [ctypes.c_char_p, ctypes.c_double]
        library.softmetal_describe_live_objects.restype = ctypes.c_size_t
        library.softmetal_describe_live_objects.argtypes = [ctypes.c_char_p, ctypes.c_size_t]

    def counter(self, name: str) -> int:
        return getattr(self.library, f"softmetal_{name}")()

    def reset_counters(self) -> None:
        self.library.softmetal_reset_counters()

    def set_fault(self, name: str, value: float = 1) -> None:
        assert self.library.softmetal_set_fault(name.encode(), value), name

    def reset_faults(self) -> None:
        """Those of the environment, under which a whole run may stand, stay on."""
        self.library.softmetal_reset_faults()

    def take_violations(self) -> list[str]:
        found = [
            self.library.softmetal_violation_rule(i).decode()
            + ": "
            + self.library.softmetal_violation_text(i).decode()
            for i in range(self.counter("violations"))
        ]
        self.library.softmetal_clear_violations()
        return found

    def live_objects(self) -> dict[str, int]:
        text = ctypes.create_string_buffer(1 << 14)
        self.library.softmetal_describe_live_objects(text, len(text))
        lines = (line.rsplit(" ", 1) for line in text.value.decode().splitlines())
        return {name: int(count) for name, count in lines}

    def leftovers(self) -> dict[str, int]:
        """Objects beyond what the package keeps, once work in flight has had time to end."""

        def beyond() -> dict[str, int]:
            alive = self.live_objects()
            return {name: n for name, n in alive.items() if n > KEPT.get(name, 0)}

        def settled(wait: Callable[[], object]) -> bool:
            wait()
            return not beyond()

        if settled(lambda: None) or settled(gc.collect):
            return {}
        for _ in range(600):
            if settled(lambda: time.sleep(0.05)):
                return {}
        return beyond()


def load() -> Softmetal | None:
    path = Path(ml.__file__).with_name("libsoftmetal.so")
    return Softmetal(ctypes.CDLL(str(path))) if path.exists() else None
