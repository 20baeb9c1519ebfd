"""The command line: python -m mpsnn_loss demo | info | bench | conformance.

A command is a function of the parsed arguments that returns the exit code. It imports what it needs
itself, so that the other commands work without it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def demo(arguments: argparse.Namespace) -> int:
    from mpsnn_loss import _demo

    return _demo.run(arguments.epochs, arguments.output)


def info(arguments: argparse.Namespace) -> int:
    from mpsnn_loss import _info

    return _info.run()


def bench(arguments: argparse.Namespace) -> int:
    from mpsnn_loss import _bench

    return _bench.run(arguments.loss, arguments.threads, arguments.json, arguments.quick)


def loss_name(text: str) -> str:
    from mpsnn_loss import MPSCNNLossType

    names = [loss_type.name.lower() for loss_type in MPSCNNLossType]
    if text not in names:
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(names)}, got {text!r}")
    return text


def conformance(arguments: argparse.Namespace) -> int:
    from mpsnn_loss._conformance import report

    if arguments.list:
        return report.print_list(arguments.case)
    return report.run(arguments.device, arguments.json, arguments.case, arguments.strict)


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def file_to_write(text: str) -> Path:
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"must be a file in an existing folder, got {text!r}")
    return path


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mpsnn_loss")
    commands = parser.add_subparsers(required=True, metavar="command")

    words = "train a classifier of handwritten digits with the loss and gradient kernels"
    command = commands.add_parser("demo", help=words, description=words)
    command.add_argument("--epochs", type=positive, default=20, help="default: %(default)s")
    command.add_argument(
        "--output", type=file_to_write, default="demo.png", help="the PNG to write: %(default)s"
    )
    command.set_defaults(run=demo)

    words = "print the devices and how this package was built"
    command = commands.add_parser("info", help=words, description=words)
    command.set_defaults(run=info)

    words = "time every loss and gradient, and what a call costs"
    command = commands.add_parser("bench", help=words, description=words)
    command.add_argument(
        "--loss", type=loss_name, action="append", help="only this loss; may be given again"
    )
    command.add_argument("--threads", type=positive, help="default: as many as the engine takes")
    command.add_argument("--json", action="store_true", help="print JSON instead of tables")
    command.add_argument("--quick", action="store_true", help="small shapes, few samples")
    command.set_defaults(run=bench)

    words = "compare what a device computes with the numerical contract, case by case"
    command = commands.add_parser("conformance", help=words, description=words)
    command.add_argument("--device", metavar="NAME", help='"cpu", "metal" or a name of `info`')
    command.add_argument("--json", type=file_to_write, metavar="FILE", help="write all of it here")
    command.add_argument(
        "--case",
        action="append",
        metavar="NAME",
        help="a case, or how names begin; repeatable",
    )
    command.add_argument("--list", action="store_true", help="only print the names of the cases")
    command.add_argument("--strict", action="store_true", help="exit 1 unless every case agrees")
    command.set_defaults(run=conformance)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    parsed = make_parser().parse_args(arguments)
    code: int = parsed.run(parsed)
    return code


if __name__ == "__main__":
    sys.exit(main())
