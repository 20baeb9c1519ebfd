"""The info command: the devices and how this package was built, as a table."""

from __future__ import annotations

import mpsnn_loss as ml


def storage_types(device: ml.Device) -> str:
    names = ("float16", "float32", "float64")
    return " ".join(name for name in names if device.supports(name)[0])


def rows() -> list[tuple[str, str]]:
    default = ml.default_device()
    table = [
        (
            f"device {index}",
            f"{device.name} ({device.kind}): {storage_types(device)}"
            + (", default" if device is default else ""),
        )
        for index, device in enumerate(ml.devices())
    ]
    for key, value in ml.build_info().items():
        table.append((key, " ".join(value) if isinstance(value, list) else str(value)))
    return table


def run() -> int:
    table = rows()
    width = max(len(key) for key, _ in table)
    for key, value in table:
        print(f"{key:<{width}}  {value}")
    return 0
