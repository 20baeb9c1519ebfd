"""The conformance kit: what a device computes, beside what the contract says.

A fixed set of small cases runs on one device. Each result is compared with the float64 reference
and with every reading of Apple's header that `readings` names, so that one run on one Mac settles
the points on which the header is silent or contradicts itself. A difference is a finding, not a
failure.

    problems     a call of a loss, as it is asked and as it is recorded
    readings     the readings of the header, as a table
    judging      a result beside the reference and the readings
    cases        the cases by name; smoke, rows, objects, fresh, operands, direct, endurance and
                 witness hold them
    raw_objects  Apple's objects through messages (objective_c), for the cases that need them
    workers      child processes (child), so that nothing that ends one of them ends the run
    environment  the machine and the device
    recording    the file, written after each case
    report       the table, and the page for a device on which nothing works
"""

from __future__ import annotations

# Raised whenever a case, its inputs or the format of the file changes.
KIT_VERSION = 2
