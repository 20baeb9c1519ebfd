"""Time every loss against other libraries, thread count by thread count, and write the tables.

Each number of threads has a process of its own, because libraries count processors when they are
imported. Its results are lines of JSON in the output folder, in a file that a run with other
numbers of threads leaves alone; the tables are made of all of them, with --report of these only.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

QUICK_SHAPES = ("1x10", "64x10", "256x1000")


def make_parser() -> argparse.ArgumentParser:
    from tests.bench.peers import ALWAYS, PEERS
    from tests.bench.problems import LOSSES, SHAPES

    others = [name for name in PEERS if name not in ALWAYS]
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--loss", nargs="+", choices=LOSSES, default=LOSSES, metavar="NAME")
    parser.add_argument(
        "--shape", nargs="+", choices=SHAPES, metavar="SHAPE", help=", ".join(SHAPES)
    )
    parser.add_argument(
        "--deviations", nargs="+", type=float, default=[1, 60], help="of the logits: %(default)s"
    )
    parser.add_argument(
        "--peers", nargs="*", choices=others, default=others, metavar="PEER", help=", ".join(others)
    )
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="%(default)s")
    parser.add_argument("--quick", action="store_true", help="small shapes, few samples")
    parser.add_argument("--output", type=Path, default=Path("build/bench"), help="%(default)s")
    parser.add_argument("--document", type=Path, help="write the tables into this page too")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    return parser


def measure(arguments: argparse.Namespace) -> None:
    """In a process that `fix_threads` has prepared."""
    from mpsnn_loss import _bench

    from tests.bench.problems import SHAPES, problems
    from tests.bench.run import Run

    shapes = arguments.shape or (QUICK_SHAPES if arguments.quick else SHAPES)
    effort, patience = (_bench.QUICK, 0.0) if arguments.quick else (_bench.Effort(), 0.2)
    output = arguments.output / f"threads-{arguments.worker}.jsonl"
    run = Run(arguments.worker, arguments.peers, effort, patience, output)
    run.all(list(problems(arguments.loss, shapes, arguments.deviations)))


def main() -> int:
    # One worker is this same command with its number of threads.
    if "--worker" in sys.argv:
        from tests.bench.affinity import fix_threads

        fix_threads(int(sys.argv[-1]))
        measure(make_parser().parse_args())
        return 0
    arguments = make_parser().parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    if not arguments.report:
        for threads in arguments.threads:
            print(f"threads: {threads}", flush=True)
            command = [sys.executable, "-m", "tests.bench", *sys.argv[1:], "--worker", str(threads)]
            subprocess.run(command, check=True, env=dict(os.environ))
    from tests.bench import report

    report.write(arguments.output, arguments.document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
