"""The conformance kit as a command, and cases of its tests' own."""

from __future__ import annotations

import os
import subprocess
import sys


def conformance(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mpsnn_loss", "conformance", *arguments],
        capture_output=True,
        text=True,
        timeout=1800,
        env=os.environ | environment,
    )


# Modules of cases, each with what the others begin with.
HEAD = """
import os, signal, sys, time
from pathlib import Path
import mpsnn_loss as ml
from mpsnn_loss._conformance.case import Case
from mpsnn_loss._conformance.judging import fact, refusal

def good(device):
    return {"results": [fact("device", device.name)]}

def process(device):
    return {"results": [fact("process", os.getpid())]}

def kills(device):
    print("about to end", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

def hangs(device):
    time.sleep(600)

def differs(device):
    return {"results": [fact("answer", 41, 42)]}

def waits(device):
    while not Path(os.environ["KIT_TEST_FILE"]).exists():
        time.sleep(0.02)
    return good(device)

def cases(*rows):
    return {name: Case(name, *rest[:1], **(rest[1] if len(rest) > 1 else {}))
            for name, *rest in rows}
"""
