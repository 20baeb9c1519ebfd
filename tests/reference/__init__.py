"""What every engine is measured against: the numerical contract in NumPy float64."""

from __future__ import annotations
