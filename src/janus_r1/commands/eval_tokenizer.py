"""``janus-r1 eval tokenizer``: the share of scenes that survive encoding and decoding."""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Table

from janus_r1.commands.model import load_model
from janus_r1.commands.terminal import answers_only, print_json
from janus_r1.eval.tables import show


def run(args: argparse.Namespace) -> None:
    with answers_only(args.json):
        model = load_model(args.model, args.dtype, args.device, kv=args.kv)
        from janus_r1.eval.tokenizer import TokenizerOptions, evaluate_tokenizer

        result = evaluate_tokenizer(model.model, TokenizerOptions(args.world, scenes=args.scenes, seed=args.seed))
    if args.json:
        print_json(result)
        return
    table = Table("scenes", "kept", "ids used", "error (grey levels)", title=f"image tokenizer of {args.model}")
    for name, values in result.items():
        kept = show(values["kept"])
        table.add_row(name.replace("_", " "), kept, str(values["ids_used"]), f"{values['error']:.2f}")
    Console().print(table)
