"""Options of the commands that draw, edit and judge."""

from __future__ import annotations

from typing import Any

from janus_r1.commands.options.common import (
    EDIT_TEMPERATURE,
    JUDGE,
    add_command,
    add_folder,
    add_json,
    add_max_batch,
    add_model,
    add_rounds,
    add_sampling,
)
from janus_r1.commands.options.parser import Parser, at_least

GENERATE_EXAMPLES = """\
examples:
  janus-r1 generate "a red circle left of a blue square"
  janus-r1 generate "two stars" "a pink heart above a cross" --rounds 5 --final best
  janus-r1 generate --file prompts.txt --samples 8 --out outputs/run1 --json > run1.json
  janus-r1 generate "a corgi" --model midbee/Janus-Pro-R1-7B --dtype bfloat16 --device cuda --preset paper

The folder --out then holds sheet.png (everything at a glance), chains.json (the index) and one
folder a chain with its drafts, its verdicts and a sheet of its own."""

EDIT_EXAMPLES = """\
examples:
  janus-r1 edit scene.png "make the red circle blue"
  janus-r1 edit scene.png "remove the star" "add a green ring" --rounds 5
  janus-r1 edit photo.jpg "turn the sky pink" --model models/editor --samples 4 --json

Several instructions are taken in turn, each applied to the last result. The picture is fitted into the
model's square. The folder --out holds what generate writes, and every chain its source."""

JUDGE_EXAMPLES = """\
examples:
  janus-r1 judge drawing.png --text "three green stars"
  janus-r1 judge a.png b.png --text "a red ring" --text "a blue ring" --json"""

# What the paper and the released checkpoint sample with, where the defaults differ. The temperature of drafts
# is not stated; the official code's is 1, which is the default.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "rounds": 3,
        "guidance": 5.0,
        "top_k": 4096,
        "text_top_k": 50,
        "text_temperature": 1.0,
        "history": "last",
    },
}


def add_generate(commands: Any) -> Parser:
    parser = add_command(commands, "generate", "generate", "draw, judge, redraw", GENERATE_EXAMPLES)
    parser.add_argument("prompts", nargs="*", metavar="PROMPT", help="what to draw; several are drawn together")
    parser.add_argument(
        "--file", metavar="FILE", help="prompts: text, one a line (# comments), or JSONL; - is standard input"
    )
    parser.add_argument(
        "--samples", metavar="N", type=at_least(1), help="chains a prompt (default: 4 for one prompt, else 1)"
    )
    add_rounds(parser)
    parser.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        help="paper: guidance 5, top-k 4096, text sampled at 1 with top-k 50, 3 rounds, history last; "
        "options given beside it win",
    )
    add_sampling(parser)
    add_model(parser)
    add_folder(parser, "folder to write (default: outputs/PROMPT-SEED)")
    add_json(parser)
    return parser


def add_edit(commands: Any) -> None:
    parser = add_command(commands, "edit", "edit", "edit an image, judge the result, redraw", EDIT_EXAMPLES)
    parser.add_argument("image", metavar="IMAGE", help="the image to edit, a file of any common format")
    parser.add_argument("instructions", nargs="+", metavar="INSTRUCTION", help="what to change, in turn")
    parser.add_argument("--samples", metavar="N", type=at_least(1), default=1, help="chains an instruction")
    add_rounds(parser, default=1)  # the embedded editor has not learnt to redraw
    add_sampling(parser, EDIT_TEMPERATURE)
    add_model(parser)
    add_folder(parser, "folder to write (default: outputs/INSTRUCTION-SEED)")
    add_json(parser)


def add_judge(commands: Any) -> None:
    parser = add_command(commands, "judge", "judge", "say whether images match a text, and why", JUDGE_EXAMPLES)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files of any common format")
    parser.add_argument(
        "--text",
        action="append",
        required=True,
        metavar="TEXT",
        help="what it should show; once for all images, or once an image",
    )
    parser.add_argument(
        "--text-temperature", metavar="T", type=float, default=0.0, help="of the reason; 0 takes the likeliest"
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="for --text-temperature above 0")
    add_max_batch(parser, "images judged at once at most: a number, or auto for as many as fit into memory")
    add_model(parser, JUDGE)
    add_json(parser)
