"""The command ``janus-r1``: parse, dispatch, end cleanly.

Nothing heavy is imported before a command runs, so that every ``--help`` is instant. Bad input ends
in one line on stderr and exit code 2; an interrupt in exit code 130.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Sequence

from janus_r1.commands.options import build_parser
from janus_r1.errors import UserError, one_line


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    try:
        args = _parse(argv)
        importlib.import_module(f"janus_r1.commands.{args.command}").run(args)
        sys.stdout.flush()  # a full disk behind stdout shows here, not in a traceback at exit
    except UserError as error:
        return _fail(str(error))
    except BrokenPipeError:  # the reader (head, less) has seen enough
        _silence_stdout()
        return 0
    except (OSError, MemoryError) as error:
        _silence_stdout()
        return _fail(str(error) or "out of memory: lower --max-batch")
    except KeyboardInterrupt:
        print("janus-r1: interrupted", file=sys.stderr)
        return 130
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Only recipe commands take further options: ``--run.steps 100``.

    A preset is a set of defaults, so a command line that names one is read again with these.
    """
    args, rest = build_parser().parse_known_args(argv)
    if preset := getattr(args, "preset", None):
        args, rest = build_parser(preset).parse_known_args(argv)
    if hasattr(args, "overrides"):
        args.overrides = rest
    elif rest and rest[0].startswith("-"):
        raise UserError(f"unknown option {rest[0]} (see --help)")
    elif rest:
        raise UserError(f"unexpected argument {rest[0]!r}: put arguments side by side, before the options")
    return args


def _fail(message: str) -> int:
    print(f"janus-r1: error: {one_line(message)}", file=sys.stderr)
    return 2


def _silence_stdout() -> None:
    """What is still buffered must not fail again when the interpreter flushes it."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
