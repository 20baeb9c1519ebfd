"""Fixtures: every device, loss, reduction and dtype; and the tally of the contract."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import mpsnn_loss as ml
import pytest

# For `from reference import losses` and for modules beside the tests.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import softmetal
from tested_devices import DEVICES

DOUBLE = softmetal.load()


@pytest.fixture(scope="session", params=DEVICES, ids=lambda device: device.name)
def device(request: pytest.FixtureRequest) -> ml.Device:
    return request.param


@pytest.fixture(scope="session", params=list(ml.MPSCNNLossType), ids=lambda t: t.name.lower())
def loss_type(request: pytest.FixtureRequest) -> ml.MPSCNNLossType:
    return request.param


@pytest.fixture(scope="session", params=list(ml.MPSCNNReductionType), ids=lambda t: t.name.lower())
def reduction_type(request: pytest.FixtureRequest) -> ml.MPSCNNReductionType:
    return request.param


@pytest.fixture(scope="session", params=["float32", "float16", "float64"])
def dtype(request: pytest.FixtureRequest, device: ml.Device) -> str:
    """A storage type, skipped with the words of a device that does not support it."""
    supported, reason = device.supports(request.param)
    if not supported:
        pytest.skip(reason)
    return request.param


@pytest.fixture(scope="session")
def double() -> softmetal.Softmetal:
    """The double of Metal that the package was built on."""
    if DOUBLE is None:
        pytest.skip("this build is not on the double of Metal")
    return DOUBLE


@pytest.fixture(autouse=DOUBLE is not None)
def _judged_by_the_double(request: pytest.FixtureRequest) -> Iterator[None]:
    """No rule broken and no object left, whatever a test did."""
    yield
    # Fixtures are torn down, and would still be held here (there are none after an interruption).
    (request.node.funcargs or {}).clear()
    if DOUBLE is None:
        return
    assert DOUBLE.take_violations() == []
    assert DOUBLE.leftovers() == {}


@dataclass
class Tally:
    """How many results were compared with the reference, and the worst error of each dtype."""

    cells: Counter[str] = field(default_factory=Counter)
    worst: dict[str, tuple[float, str]] = field(default_factory=dict)

    def add(self, dtype: str, error: float, what: str) -> None:
        self.cells[dtype] += 1
        self.worst[dtype] = max(self.worst.get(dtype, (0.0, "")), (error, what))


TALLY = pytest.StashKey[Tally]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TALLY] = Tally()


@pytest.fixture(scope="session")
def tally(pytestconfig: pytest.Config) -> Tally:
    return pytestconfig.stash[TALLY]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    tally = config.stash[TALLY]
    if not tally.cells:
        return
    worst = ", ".join(
        f"{dtype} {error:.3g} of the tolerance ({what})"
        for dtype, (error, what) in sorted(tally.worst.items())
    )
    terminalreporter.write_line(f"contract: {tally.cells.total()} cells, worst error {worst}")
