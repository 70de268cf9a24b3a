"""Options of ``janus-r1 eval``."""

from __future__ import annotations

from typing import Any

from janus_r1.commands.options.common import (
    EDIT_TEMPERATURE,
    JUDGE,
    add_command,
    add_json,
    add_model,
    add_sampling,
)
from janus_r1.commands.options.parser import Parser, at_least, limits
from janus_r1.worlds import DEFAULT

EVAL_EXAMPLES = """\
examples:
  janus-r1 eval world --limit 50 --no-controls
  janus-r1 eval world --model runs/sft/model --split dense --rounds 1,3 --out results/dense.json
  janus-r1 eval world --split held_out --json > held_out.json"""

EVAL_EDIT_EXAMPLES = """\
examples:
  janus-r1 eval edit --model runs/sft/model --limit 60
  janus-r1 eval edit --model runs/rl/best --split held_out --rounds 1,3 --out results/edit.json
  janus-r1 eval edit --no-baselines --json > edit.json"""

EVAL_PIE_EXAMPLES = """\
examples:
  janus-r1 eval pie data/PIE-Bench --model models/editor --guidance 5 --dtype bfloat16 --device cuda
  janus-r1 eval pie data/PIE-Bench --model models/editor --limit 50 --rounds 1 --json > pie.json
  janus-r1 eval pie data/PIE-Bench --model models/editor --clip none --dino models/dino-vitb8

FOLDER is your own copy of PIE-Bench: mapping_file.json beside annotation_images/. A metric whose weights are
not there is reported as not measured; LPIPS needs pip install 'janus-r1[pie]'."""

EVAL_JUDGE_EXAMPLES = """\
examples:
  janus-r1 eval judge --model tiny-r1
  janus-r1 eval judge --model runs/rl/model --drafts-of tiny-base --out results/judge.json"""

TOKENIZER_EXAMPLES = """\
examples:
  janus-r1 eval tokenizer --model tiny-base
  janus-r1 eval tokenizer --scenes 200 --json"""


def add_eval(commands: Any) -> None:
    about = "measure a model"
    measure = commands.add_parser("eval", help=about, description=f"{about.capitalize()}.", epilog=EVAL_EXAMPLES)
    benchmarks = measure.add_subparsers(metavar="BENCHMARK", required=True)
    for add in (_add_world, _add_edit, _add_pie, _add_judge, _add_tokenizer):
        add(benchmarks)


def _add_world(commands: Any) -> None:
    parser = add_command(commands, "world", "eval_world", "measure a model on prompts of a world", EVAL_EXAMPLES)
    parser.set_defaults(kind="draw", baselines=False)
    _add_split(parser, "prompts to draw")
    _add_round_limits(parser, "1,2,3,4")
    _add_samples(parser, 4, "chains a prompt")
    _add_limit(parser, "prompts at most, balanced over families")
    parser.add_argument("--no-controls", dest="controls", action="store_false", help="skip best-of-N and the like")
    _add_chains_and_result(parser)


def _add_edit(commands: Any) -> None:
    summary = "measure how a model edits pictures of a world"
    parser = add_command(commands, "edit", "eval_world", summary, EVAL_EDIT_EXAMPLES)
    parser.set_defaults(kind="edit", controls=False)
    _add_split(parser, "edits to make")
    _add_round_limits(parser, "1")
    _add_samples(parser, 1, "chains an edit")
    _add_limit(parser, "edits at most, balanced over their types")
    parser.add_argument(
        "--no-baselines", dest="baselines", action="store_false", help="skip copying, drawing anew, the tokenizer"
    )
    _add_chains_and_result(parser, EDIT_TEMPERATURE)


def _add_pie(commands: Any) -> None:
    summary = "measure how a model edits real pictures, by the PIE-Bench protocol"
    parser = add_command(commands, "pie", "eval_pie", summary, EVAL_PIE_EXAMPLES)
    parser.add_argument("folder", metavar="FOLDER", help="your copy of PIE-Bench")
    _add_round_limits(parser, "1,3")
    _add_limit(parser, "pictures at most, balanced over edit types")
    parser.add_argument("--no-baselines", dest="baselines", action="store_false", help="skip copying and the tokenizer")
    parser.add_argument(
        "--clip",
        metavar="NAME",
        default="openai/clip-vit-large-patch14",
        help="CLIP, a folder or owner/name on the Hub; none skips it",
    )
    parser.add_argument(
        "--dino",
        metavar="NAME",
        default="facebook/dino-vitb8",
        help="ViT of the structure distance, likewise",
    )
    _add_chains_and_result(parser)


def _add_judge(commands: Any) -> None:
    summary = "measure a model's verdicts on one fixed set of drafts, half of them right"
    parser = add_command(commands, "judge", "eval_judge", summary, EVAL_JUDGE_EXAMPLES)
    parser.add_argument("--drafts-of", metavar="MODEL", default="tiny-base", help="model that drew what is judged")
    _add_split(parser, "prompts of the drafts")
    _add_samples(parser, 4, "drafts a prompt")
    _add_limit(parser, "prompts at most, balanced over families")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of the drafts")
    parser.add_argument("--max-batch", metavar="N", type=at_least(1), default=64, help="images judged at once")
    add_model(parser, JUDGE)
    _add_result(parser)
    add_json(parser)


def _add_tokenizer(commands: Any) -> None:
    summary = "measure what a model's image tokenizer keeps of fresh scenes"
    parser = add_command(commands, "tokenizer", "eval_tokenizer", summary, TOKENIZER_EXAMPLES)
    _add_world_name(parser)
    parser.add_argument("--scenes", metavar="N", type=at_least(1), default=1000, help="scenes to encode and decode")
    parser.add_argument("--seed", metavar="N", type=int, default=1_000_000, help="of the scenes")
    add_model(parser)
    add_json(parser)


def _add_world_name(parser: Parser) -> None:
    parser.add_argument("--world", metavar="NAME", default=DEFAULT, help="its name, a Python file, or module:name")


def _add_split(parser: Parser, about: str) -> None:
    _add_world_name(parser)
    parser.add_argument("--split", metavar="NAME", default="test", help=f"{about}: a split of the world (data splits)")


def _add_round_limits(parser: Parser, default: str) -> None:
    parser.add_argument(
        "--rounds", dest="round_limits", type=limits, default=default, metavar="T,T", help="round limits to report"
    )


def _add_samples(parser: Parser, default: int, about: str) -> None:
    parser.add_argument("--samples", metavar="N", type=at_least(1), default=default, help=about)


def _add_limit(parser: Parser, about: str) -> None:
    parser.add_argument("--limit", metavar="N", type=at_least(1), help=about)


def _add_result(parser: Parser) -> None:
    parser.add_argument("--out", metavar="PATH", help="JSON file to write as well")


def _add_chains_and_result(parser: Parser, temperature: float = 1.0) -> None:
    """How chains are sampled, by which model, and where the figures go."""
    add_sampling(parser, temperature)
    add_model(parser)
    _add_result(parser)
    add_json(parser)
