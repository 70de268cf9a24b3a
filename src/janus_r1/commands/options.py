"""Every option of ``janus-r1`` and the texts of its help; imports nothing but argparse."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

from janus_r1.errors import UserError

DESCRIPTION = """\
A unified multimodal model that draws, judges its own drawing, and redraws until it is satisfied."""

EXAMPLES = """\
examples:
  janus-r1 generate "a red circle left of a blue square"
  janus-r1 edit drawing.png "make the circle blue"
  janus-r1 judge drawing.png --text "three green stars"
  janus-r1 data splits
  janus-r1 train sft --config recipes/tiny/sft.yaml --run.steps 500
  janus-r1 eval world --split held_out --limit 50
  janus-r1 convert deepseek-ai/Janus-Pro-1B models/janus-pro-1b

janus-r1 COMMAND --help says more about each."""

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

TRAIN_EXAMPLES = """\
examples:
  janus-r1 train vq --config recipes/tiny/vq.yaml
  janus-r1 train pretrain --config recipes/tiny/pretrain.yaml --run.steps 500 --run.out runs/short
  janus-r1 train sft --config recipes/tiny/sft.yaml --resume"""

RECIPE_EXAMPLES = """\
examples:
  janus-r1 {command} --config recipes/tiny/{file}.yaml
  janus-r1 {command} --config recipes/tiny/{file}.yaml --{first} runs/mine
  janus-r1 {command} --config recipes/tiny/{file}.yaml --resume

recipe keys (in the YAML file, or on the command line, which wins):
{keys}"""

SPLITS_EXAMPLES = """\
examples:
  janus-r1 data splits
  janus-r1 data splits --examples 10 --json"""

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

EVAL_EXAMPLES = """\
examples:
  janus-r1 eval world --limit 50 --no-controls
  janus-r1 eval world --model runs/sft/model --split dense --rounds 1,3 --out results/dense.json
  janus-r1 eval world --split held_out --json > held_out.json"""

TOKENIZER_EXAMPLES = """\
examples:
  janus-r1 eval tokenizer --model tiny-base
  janus-r1 eval tokenizer --scenes 200 --json"""

JUDGE_SET_EXAMPLES = """\
examples:
  janus-r1 eval judge --model tiny-sft
  janus-r1 eval judge --model runs/rl/model --drafts-of tiny-base --out results/judge.json"""

AUDIT_EXAMPLES = """\
examples:
  janus-r1 eval audit --model tiny-sft --limit 60
  janus-r1 eval audit --model runs/rl/model --out outputs/audit-r1
  python -m janus_r1.eval.audit_report outputs/audit-sft/audit.json outputs/audit-r1/audit.json

The folder --out then holds audit.json and, of each of the two errors, up to twelve examples in a picture."""

CONVERT_EXAMPLES = """\
examples:
  janus-r1 convert deepseek-ai/Janus-Pro-1B models/janus-pro-1b
  janus-r1 convert path/to/Janus-Pro-7B models/my-sft --weights sft.pth

Reads DeepSeek's layout (pytorch_model*.bin or safetensors) without running any code of it."""

Recipe = tuple[str, str, str]  # module, recipe class, function(recipe, resume) -> Path

STAGES: dict[str, tuple[Recipe, str]] = {
    "vq": (("janus_r1.train.vq", "VqRecipe", "train_vq"), "Train the image tokenizer of a from-scratch model."),
    "vision": (
        ("janus_r1.train.vision", "VisionRecipe", "teach_vision"),
        "Teach a from-scratch encoder words for patches.",
    ),
    "pretrain": (("janus_r1.train.pretrain", "PretrainRecipe", "pretrain"), "Train a base model from nothing."),
    "sft": (("janus_r1.train.sft", "SftRecipe", "sft"), "Finetune on candidates: draw, judge, redraw, edit."),
    "rl": (("janus_r1.train.rl.stage", "RlRecipe", "rl"), "Reinforce whole chains by rewards for drawing and judging."),
}
BUILD: Recipe = ("janus_r1.data.build", "BuildRecipe", "build")


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


class Parser(argparse.ArgumentParser):
    """One-line errors instead of a usage text; options are never abbreviated.

    With ``recipe`` the help lists the recipe's keys, read from the source when help is asked for.
    """

    def __init__(self, recipe: Recipe | None = None, **options: Any) -> None:
        super().__init__(formatter_class=_Help, allow_abbrev=False, **options)
        self.recipe = recipe

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")

    def format_help(self) -> str:
        if self.recipe:
            from janus_r1.recipe_help import help_of

            keys = help_of(*self.recipe[:2])
            first = keys.split("--", 1)[1].split()[0]
            command = self.prog.split(" ", 1)[1]
            file = command.split()[-1].replace("build", "candidates")
            self.epilog = RECIPE_EXAMPLES.format(command=command, file=file, first=first, keys=keys)
        return super().format_help()


class _Help(argparse.RawDescriptionHelpFormatter):
    """Shows defaults where there is one to show."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=100)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        silent = action.default in (None, argparse.SUPPRESS) or action.nargs == 0
        return action.help if silent or not action.option_strings else f"{action.help} (default: %(default)s)"


# --------------------------------------------------------------------------------------- parsers


def build_parser(preset: str | None = None) -> Parser:
    """``preset`` is the one that ``generate`` was given: its values become the defaults there."""
    parser = Parser(prog="janus-r1", description=DESCRIPTION, epilog=EXAMPLES)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_generate(commands).set_defaults(**PRESETS.get(preset or "", {}))
    _add_edit(commands)
    _add_judge(commands)
    train = commands.add_parser("train", help="train a stage", description="Train a stage.", epilog=TRAIN_EXAMPLES)
    stages = train.add_subparsers(metavar="STAGE", required=True)
    for name, (recipe, summary) in STAGES.items():
        _add_recipe(stages, name, recipe, summary)
    about = "prompts and training data"
    data = commands.add_parser("data", help=about, description=f"{about.capitalize()}.", epilog=SPLITS_EXAMPLES)
    actions = data.add_subparsers(metavar="ACTION", required=True)
    _add_recipe(actions, "build", BUILD, "Draw and judge many candidates, the raw material of SFT.")
    _add_splits(actions)
    about = "measure a model"
    measure = commands.add_parser("eval", help=about, description=f"{about.capitalize()}.", epilog=EVAL_EXAMPLES)
    benchmarks = measure.add_subparsers(metavar="BENCHMARK", required=True)
    _add_eval_world(benchmarks)
    _add_eval_edit(benchmarks)
    _add_eval_pie(benchmarks)
    _add_eval_judge(benchmarks)
    _add_eval_audit(benchmarks)
    _add_eval_tokenizer(benchmarks)
    _add_convert(commands)
    return parser


def _add(commands: Any, name: str, module: str, summary: str, examples: str) -> Parser:
    parser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=examples)
    parser.set_defaults(command=module)
    return parser


def _add_generate(commands: Any) -> Parser:
    parser = _add(commands, "generate", "generate", "draw, judge, redraw", GENERATE_EXAMPLES)
    parser.add_argument("prompts", nargs="*", metavar="PROMPT", help="what to draw; several are drawn together")
    parser.add_argument(
        "--file", metavar="FILE", help="prompts: text, one a line (# comments), or JSONL; - is standard input"
    )
    parser.add_argument(
        "--samples", metavar="N", type=_at_least(1), help="chains a prompt (default: 4 for one prompt, else 1)"
    )
    parser.add_argument("--rounds", metavar="N", type=_at_least(1), default=3, help="drafts a chain at most")
    parser.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        help="paper: guidance 5, top-k 4096, text sampled at 1 with top-k 50, 3 rounds, history last; "
        "options given beside it win",
    )
    _add_sampling(parser)
    _add_model(parser)
    parser.add_argument("--out", metavar="PATH", help="folder to write (default: outputs/PROMPT-SEED)")
    parser.add_argument("--overwrite", action="store_true", help="replace --out if an earlier run wrote it")
    _add_json(parser)
    return parser


def _add_edit(commands: Any) -> None:
    parser = _add(commands, "edit", "edit", "edit an image, judge the result, redraw", EDIT_EXAMPLES)
    parser.add_argument("image", metavar="IMAGE", help="the image to edit, a file of any common format")
    parser.add_argument("instructions", nargs="+", metavar="INSTRUCTION", help="what to change, in turn")
    parser.add_argument("--samples", metavar="N", type=_at_least(1), default=1, help="chains an instruction")
    parser.add_argument("--rounds", metavar="N", type=_at_least(1), default=3, help="drafts a chain at most")
    _add_sampling(parser)
    _add_model(parser)
    parser.add_argument("--out", metavar="PATH", help="folder to write (default: outputs/INSTRUCTION-SEED)")
    parser.add_argument("--overwrite", action="store_true", help="replace --out if an earlier run wrote it")
    _add_json(parser)


def _add_sampling(parser: Parser) -> None:
    parser.add_argument(
        "--guidance",
        metavar="W",
        type=float,
        default=1.5,
        help="pull of the prompt on drafts; 1 turns it off, Janus-Pro wants 5",
    )
    parser.add_argument("--temperature", metavar="T", type=float, default=1.0, help="of drafts")
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
    _add_max_batch(parser, "chains drawn at once at most: a number, or auto for as many as fit into memory")


def _add_max_batch(parser: Parser, about: str) -> None:
    parser.add_argument("--max-batch", metavar="N", type=_batch, default=64, help=about)


def _add_model(parser: Parser) -> None:
    parser.add_argument(
        "--model", default="tiny-sft", help="a model in the package, a folder, or owner/name on the Hub"
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "auto"), default="float32", help="of the weights; auto: as stored"
    )
    parser.add_argument("--device", metavar="NAME", default="cpu", help="cpu, cuda, cuda:1, ...")


def _add_json(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout, all else on stderr")


def _add_judge(commands: Any) -> None:
    parser = _add(commands, "judge", "judge", "say whether images match a text, and why", JUDGE_EXAMPLES)
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
    _add_max_batch(parser, "images judged at once at most: a number, or auto for as many as fit into memory")
    _add_model(parser)
    _add_json(parser)


def _add_recipe(commands: Any, name: str, recipe: Recipe, summary: str) -> None:
    usage = "%(prog)s [--config FILE] [--resume] [--json] [--KEY VALUE ...]"
    short = summary[0].lower() + summary[1:-1]
    parser = commands.add_parser(name, help=short, description=summary, usage=usage, recipe=recipe)
    parser.add_argument("--config", metavar="FILE", help="recipe, YAML; without it every key has its default")
    parser.add_argument("--resume", action="store_true", help="continue the run in the recipe's folder")
    _add_json(parser)
    parser.set_defaults(command="train", recipe=recipe, overrides=[])


def _add_splits(commands: Any) -> None:
    summary = "show the world's prompts and edits, by split and family"
    parser = _add(commands, "splits", "data_splits", summary, SPLITS_EXAMPLES)
    parser.add_argument("--examples", metavar="N", type=_at_least(0), default=5, help="prompts or edits shown a split")
    _add_json(parser)


def _add_eval_world(commands: Any) -> None:
    parser = _add(commands, "world", "eval_world", "measure a model on the world shapes", EVAL_EXAMPLES)
    parser.add_argument("--split", choices=("test", "dense", "held_out"), default="test", help="prompts to draw")
    parser.add_argument(
        "--rounds", dest="round_limits", type=_limits, default="1,2,3,4", metavar="T,T", help="round limits to report"
    )
    parser.add_argument("--samples", metavar="N", type=_at_least(1), default=4, help="chains a prompt")
    parser.add_argument("--limit", metavar="N", type=_at_least(1), help="prompts at most, balanced over families")
    parser.add_argument("--no-controls", dest="controls", action="store_false", help="skip best-of-N and the like")
    _add_sampling(parser)
    _add_model(parser)
    parser.add_argument("--out", metavar="PATH", help="JSON file to write as well")
    _add_json(parser)


def _add_eval_edit(commands: Any) -> None:
    summary = "measure how a model edits pictures of the world shapes"
    parser = _add(commands, "edit", "eval_edit", summary, EVAL_EDIT_EXAMPLES)
    parser.add_argument("--split", choices=("test", "held_out"), default="test", help="edits to make")
    parser.add_argument(
        "--rounds", dest="round_limits", type=_limits, default="1,3", metavar="T,T", help="round limits to report"
    )
    parser.add_argument("--samples", metavar="N", type=_at_least(1), default=1, help="chains an edit")
    parser.add_argument("--limit", metavar="N", type=_at_least(1), help="edits at most, balanced over their types")
    parser.add_argument(
        "--no-baselines", dest="baselines", action="store_false", help="skip copying, drawing anew, the tokenizer"
    )
    _add_sampling(parser)
    _add_model(parser)
    parser.add_argument("--out", metavar="PATH", help="JSON file to write as well")
    _add_json(parser)


def _add_eval_pie(commands: Any) -> None:
    summary = "measure how a model edits real pictures, by the PIE-Bench protocol"
    parser = _add(commands, "pie", "eval_pie", summary, EVAL_PIE_EXAMPLES)
    parser.add_argument("folder", metavar="FOLDER", help="your copy of PIE-Bench")
    parser.add_argument(
        "--rounds", dest="round_limits", type=_limits, default="1,3", metavar="T,T", help="round limits to report"
    )
    parser.add_argument("--limit", metavar="N", type=_at_least(1), help="pictures at most, balanced over edit types")
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
    _add_sampling(parser)
    _add_model(parser)
    parser.add_argument("--out", metavar="PATH", help="JSON file to write as well")
    _add_json(parser)


def _add_eval_judge(commands: Any) -> None:
    summary = "measure a model's verdicts on one fixed set of drafts, half of them right"
    parser = _add(commands, "judge", "eval_judge", summary, JUDGE_SET_EXAMPLES)
    parser.add_argument("--drafts-of", metavar="MODEL", default="tiny-base", help="model that drew what is judged")
    parser.add_argument("--split", choices=("test", "dense", "held_out"), default="test", help="prompts of the drafts")
    parser.add_argument("--samples", metavar="N", type=_at_least(1), default=4, help="drafts a prompt")
    parser.add_argument("--limit", metavar="N", type=_at_least(1), help="prompts at most, balanced over families")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of the drafts")
    parser.add_argument("--max-batch", metavar="N", type=_at_least(1), default=64, help="images judged at once")
    _add_model(parser)
    parser.add_argument("--out", metavar="PATH", help="JSON file to write as well")
    _add_json(parser)


def _add_eval_audit(commands: Any) -> None:
    summary = "show what a model accepts though it is wrong, and rejects though it is right"
    parser = _add(commands, "audit", "eval_audit", summary, AUDIT_EXAMPLES)
    parser.add_argument("--split", choices=("test", "dense", "held_out"), default="test", help="prompts to draw")
    parser.add_argument("--samples", metavar="N", type=_at_least(1), default=4, help="drafts a prompt")
    parser.add_argument("--limit", metavar="N", type=_at_least(1), help="prompts at most, balanced over families")
    _add_sampling(parser)
    _add_model(parser)
    parser.add_argument("--out", metavar="PATH", help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace --out if an earlier audit wrote it")
    _add_json(parser)


def _add_eval_tokenizer(commands: Any) -> None:
    summary = "measure what a model's image tokenizer keeps of fresh scenes"
    parser = _add(commands, "tokenizer", "eval_tokenizer", summary, TOKENIZER_EXAMPLES)
    parser.add_argument("--scenes", metavar="N", type=_at_least(1), default=1000, help="scenes to encode and decode")
    parser.add_argument("--seed", metavar="N", type=int, default=1_000_000, help="of the scenes")
    _add_model(parser)
    _add_json(parser)


def _add_convert(commands: Any) -> None:
    parser = _add(commands, "convert", "convert", "write a model in transformers' layout", CONVERT_EXAMPLES)
    parser.add_argument("source", metavar="IN", help="a folder or owner/name on the Hub, in either layout")
    parser.add_argument("out", metavar="OUT", help="folder to write")
    parser.add_argument("--weights", metavar="FILE", help="state dict to take instead of IN's own weights")
    parser.add_argument(
        "--dtype", choices=("auto", "float32", "bfloat16"), default="auto", help="of the weights; auto: as stored"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it is a model folder")
    _add_json(parser)


def _at_least(least: int) -> Callable[[str], int]:
    def integer(text: str) -> int:
        number = int(text)
        if number < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, not {number}")
        return number

    return integer


def _batch(text: str) -> int | str:
    """``auto``, or a number from 1."""
    try:
        return text if text == "auto" else _at_least(1)(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be auto or a number, not {text!r}") from None


def _limits(text: str) -> tuple[int, ...]:
    """``1,3`` -> (1, 3)."""
    try:
        return tuple(_at_least(1)(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be round limits such as 1,3, not {text!r}") from None
