"""Every case of the kit by its name, in the order of the table."""

from __future__ import annotations

from itertools import chain

from mpsnn_loss._conformance.case import Case
from mpsnn_loss._conformance.direct import direct
from mpsnn_loss._conformance.objects import objects
from mpsnn_loss._conformance.rows import cells, header_rows, shapes, special_values

CASES: dict[str, Case] = {
    case.name: case
    for case in chain(header_rows(), cells(), special_values(), shapes(), objects(), direct())
}
