"""The command line: python -m mpsnn_loss demo | info.

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
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    parsed = make_parser().parse_args(arguments)
    code: int = parsed.run(parsed)
    return code


if __name__ == "__main__":
    sys.exit(main())
