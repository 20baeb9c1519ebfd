"""The devices that the suite runs on."""

from __future__ import annotations

import os

import mpsnn_loss as ml

# Where the environment asks for the CPU engine, nothing else: wheels are tested so, on machines
# whose Metal device may hang.
DEVICES = [ml.cpu_device()] if os.environ.get("MPSNN_LOSS_DEVICE") == "cpu" else ml.devices()
