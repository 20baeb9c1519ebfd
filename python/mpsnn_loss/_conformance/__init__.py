"""The conformance kit: what a device computes, beside what the contract says.

A fixed set of small cases runs on one device. Each result is compared with the float64 reference
and with every reading of Apple's header that `readings` names, so that one run on one Mac settles
the points on which the header is silent or contradicts itself. A difference is a finding, not a
failure.

    problems    a call of a loss, as it is asked and as it is recorded
    readings    the readings of the header, as a table
    judging     a result beside the reference and the readings
    cases       the cases by name; rows, objects and direct hold them
    workers     child processes, so that an abort does not end the run
    report      the table and the JSON file
"""

from __future__ import annotations

# Raised whenever a case, its inputs or the format of the file changes.
KIT_VERSION = 1
