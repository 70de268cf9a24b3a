"""``janus-r1 convert``: DeepSeek's layout (or a bare state dict) -> transformers', ready to use and to upload."""

from __future__ import annotations

import argparse
from pathlib import Path

from janus_r1.commands.checks import check_new_folder
from janus_r1.commands.model import load_model
from janus_r1.commands.terminal import answers_only, print_json


def run(args: argparse.Namespace) -> None:
    out = Path(args.out)
    check_new_folder(out, args.overwrite, ours="config.json")
    with answers_only(args.json):
        model = load_model(args.source, args.dtype, "cpu", args.weights)
        model.save_pretrained(out)
    core = model.model.core
    result = {
        "out": str(out),
        "parameters": sum(parameter.numel() for parameter in core.parameters()),
        "dtype": str(model.model.dtype).removeprefix("torch."),
    }
    if args.json:
        print_json(result)
        return
    print(f"{out}: {result['parameters'] / 1e6:.1f} M parameters, {result['dtype']}")
