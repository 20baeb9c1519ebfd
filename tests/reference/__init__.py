"""What every engine is measured against."""

from __future__ import annotations
