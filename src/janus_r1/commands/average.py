"""``janus-r1 average``: the mean of several models' weights as a model."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from janus_r1.commands.checks import check_new_folder
from janus_r1.commands.terminal import answers_only, print_json
from janus_r1.model.averaging import average
from janus_r1.model.loading import save


def run(args: argparse.Namespace) -> None:
    out = Path(args.out)
    check_new_folder(out, args.overwrite, ours="config.json")
    with answers_only(args.json):
        save(average(args.models), out, getattr(torch, args.dtype))
    if args.json:
        print_json({"out": str(out), "models": args.models, "dtype": args.dtype})
        return
    print(f"{out}: the mean of {len(args.models)} models, {args.dtype}")
