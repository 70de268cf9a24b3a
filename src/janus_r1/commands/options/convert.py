"""Options of the commands that make models of models."""

from __future__ import annotations

from typing import Any

from janus_r1.commands.options.common import add_command, add_json

CONVERT_EXAMPLES = """\
examples:
  janus-r1 convert deepseek-ai/Janus-Pro-1B models/janus-pro-1b
  janus-r1 convert path/to/Janus-Pro-7B models/my-sft --weights sft.pth

Reads DeepSeek's layout (pytorch_model*.bin or safetensors) without running any code of it."""

AVERAGE_EXAMPLES = """\
examples:
  janus-r1 average models/mean runs/rl/model runs/sft/model

Models that were trained one from another: their mean is often better than each of them."""


def add_convert(commands: Any) -> None:
    parser = add_command(commands, "convert", "convert", "write a model in transformers' layout", CONVERT_EXAMPLES)
    parser.add_argument("source", metavar="IN", help="a folder or owner/name on the Hub, in either layout")
    parser.add_argument("out", metavar="OUT", help="folder to write")
    parser.add_argument("--weights", metavar="FILE", help="state dict to take instead of IN's own weights")
    parser.add_argument(
        "--dtype", choices=("auto", "float32", "bfloat16"), default="auto", help="of the weights; auto: as stored"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it is a model folder")
    add_json(parser)


def add_average(commands: Any) -> None:
    parser = add_command(commands, "average", "average", "write the mean of several models' weights", AVERAGE_EXAMPLES)
    parser.add_argument("out", metavar="OUT", help="folder to write, in transformers' layout")
    parser.add_argument("models", metavar="MODEL", nargs="+", help="embedded models, folders or owner/name on the Hub")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16", help="of what is written")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it is a model folder")
    add_json(parser)
