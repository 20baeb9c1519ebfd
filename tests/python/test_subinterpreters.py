"""An import in a subinterpreter ends, and says why."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mpsnn_loss as ml
import pytest

PROGRAM = """
import sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters

def run(interpreter, code):
    try:
        failure = interpreters.run_string(interpreter, code)
    except interpreters.RunFailedError as error:
        return str(error)
    return failure and failure.formatted

kind, when, modules = sys.argv[1:]
sys.path[:0] = [modules]
if when == "after":
    import mpsnn_loss
if sys.version_info >= (3, 13):
    interpreter = interpreters.create(kind)
else:
    interpreter = interpreters.create(isolated=kind == "isolated")
for attempt in range(3):
    code = f"import sys; sys.path[:0] = [{modules!r}]; import mpsnn_loss"
    failure = run(interpreter, code) or "nothing was raised"
    print(failure)
    assert "ImportError" in failure and "subinterpreter" in failure, failure
import mpsnn_loss as ml
print(ml.loss([[1.0]], [[3.0]], "mean_squared_error"))
"""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", ["legacy", "isolated"])
def test_a_subinterpreter_gets_an_import_error(kind: str, when: str) -> None:
    modules = str(Path(ml.__file__).parents[1])
    command = [sys.executable, "-c", PROGRAM, kind, when, modules]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "4.0"
