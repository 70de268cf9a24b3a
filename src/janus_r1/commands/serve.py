"""``janus-r1 serve``: HTTP API and page."""

from __future__ import annotations

import argparse
import inspect

from janus_r1.serve.command import serve


def run(args: argparse.Namespace) -> None:
    serve(**{name: getattr(args, name) for name in inspect.signature(serve).parameters})
