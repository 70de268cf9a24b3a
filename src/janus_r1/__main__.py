"""``python -m janus_r1`` and the command ``janus-r1``: an interrupt is heard while modules are still being loaded."""

from __future__ import annotations

import sys


def run() -> int:
    """The exit code of the command line."""
    try:
        from janus_r1.cli import main

        return main()
    except KeyboardInterrupt:
        print("janus-r1: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(run())
