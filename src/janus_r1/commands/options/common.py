"""Options that several commands have."""

from __future__ import annotations

from typing import Any

from janus_r1.commands.options.parser import Parser, at_least, batch

MODEL = "tiny-r1-edit"  # the model in the package that draws and edits best
JUDGE = "tiny-r1"  # the one that judges pictures of others best
EDIT_TEMPERATURE = 0.5  # chain.EDIT_TEMPERATURE, without importing what it needs for --help


def add_command(commands: Any, name: str, module: str, summary: str, examples: str) -> Parser:
    parser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=examples)
    parser.set_defaults(command=module)
    return parser


def add_sampling(parser: Parser, temperature: float = 1.0) -> None:
    parser.add_argument(
        "--guidance",
        metavar="W",
        type=float,
        default=1.5,
        help="pull of the prompt on drafts; 1 turns it off, Janus-Pro wants 5",
    )
    parser.add_argument("--temperature", metavar="T", type=float, default=temperature, help="of drafts")
    parser.add_argument("--top-k", metavar="K", type=int, default=0, help="image ids to sample from; 0 takes all")
    parser.add_argument(
        "--top-p", metavar="P", type=float, default=1.0, help="probability mass of image ids to sample from"
    )
    parser.add_argument(
        "--text-temperature", metavar="T", type=float, default=0.0, help="of verdict and reason; 0 takes the likeliest"
    )
    parser.add_argument(
        "--text-top-k", metavar="K", type=int, default=50, help="text tokens to sample from; 0 takes all"
    )
    parser.add_argument("--history", choices=("full", "last"), default="full", help="earlier rounds kept in context")
    parser.add_argument("--final", choices=("last", "best"), default="last", help="last draft, or highest p_yes")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="the same seed draws the same chains")
    add_max_batch(parser, "chains drawn at once at most: a number, or auto for as many as fit into memory")


def add_max_batch(parser: Parser, about: str) -> None:
    parser.add_argument("--max-batch", metavar="N", type=batch, default=64, help=about)


def add_model(parser: Parser, default: str = MODEL) -> None:
    parser.add_argument("--model", default=default, help="a model in the package, a folder, or owner/name on the Hub")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "int8", "auto"),
        default="float32",
        help="of the weights; auto: as stored; int8: large matrices in 8 bits, to generate with a large model",
    )
    parser.add_argument(
        "--kv",
        choices=("auto", "fp8"),
        default="auto",
        help="of cached keys and values; auto: as the weights; fp8: half of bfloat16's memory",
    )
    parser.add_argument("--device", metavar="NAME", default="cpu", help="cpu, cuda, cuda:1, ...")


def add_json(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout, all else on stderr")


def add_rounds(parser: Parser, default: int = 3) -> None:
    parser.add_argument("--rounds", metavar="N", type=at_least(1), default=default, help="drafts a chain at most")


def add_folder(parser: Parser, about: str, writer: str = "run") -> None:
    """Where to write a folder, and whether over one that an earlier ``writer`` wrote."""
    parser.add_argument("--out", metavar="PATH", help=about)
    parser.add_argument("--overwrite", action="store_true", help=f"replace --out if an earlier {writer} wrote it")
