"""Every case of the kit by its name, in the order of the table."""

from __future__ import annotations

from itertools import chain

from mpsnn_loss._conformance.case import Case
from mpsnn_loss._conformance.direct import direct
from mpsnn_loss._conformance.endurance import endurance
from mpsnn_loss._conformance.fresh import fresh
from mpsnn_loss._conformance.objects import objects
from mpsnn_loss._conformance.operands import operands
from mpsnn_loss._conformance.rows import cells, header_rows, shapes, special_values
from mpsnn_loss._conformance.smoke import smoke
from mpsnn_loss._conformance.witness import witness

_rows = [*header_rows(), *cells(), *special_values(), *shapes()]

CASES: dict[str, Case] = {
    case.name: case
    for case in chain(
        smoke(),
        (case for case in _rows if case.group != "labels"),
        objects(),
        fresh(),
        operands(),
        direct(),
        endurance(),
        witness(),
        (case for case in _rows if case.group == "labels"),
    )
}
