"""Options of the commands that read a recipe, and of the data that they train on."""

from __future__ import annotations

from typing import Any

from janus_r1.commands.options.common import add_command, add_json
from janus_r1.commands.options.parser import Recipe, at_least
from janus_r1.worlds import DEFAULT

TRAIN_EXAMPLES = """\
examples:
  janus-r1 train vq --config shapes/vq
  janus-r1 train pretrain --config shapes/pretrain --run.steps 500 --run.out runs/short
  janus-r1 train sft --config shapes/sft --resume"""

SPLITS_EXAMPLES = """\
examples:
  janus-r1 data splits
  janus-r1 data splits --examples 10 --json"""

STAGES: dict[str, tuple[Recipe, str]] = {
    "vq": (
        ("janus_r1.worlds.shapes.training.vq", "VqRecipe", "train_vq"),
        "Train the image tokenizer of a from-scratch model.",
    ),
    "vision": (
        ("janus_r1.worlds.shapes.training.vision", "VisionRecipe", "teach_vision"),
        "Teach a from-scratch encoder words for patches.",
    ),
    "pretrain": (
        ("janus_r1.worlds.shapes.training.pretrain", "PretrainRecipe", "pretrain"),
        "Train a base model from nothing.",
    ),
    "sft": (("janus_r1.train.sft", "SftRecipe", "sft"), "Finetune on candidates: draw, judge, redraw, edit."),
    "rl": (("janus_r1.train.rl.stage", "RlRecipe", "rl"), "Reinforce whole chains by rewards for drawing and judging."),
}
BUILD: Recipe = ("janus_r1.data.build", "BuildRecipe", "build")


def add_train(commands: Any) -> None:
    train = commands.add_parser("train", help="train a stage", description="Train a stage.", epilog=TRAIN_EXAMPLES)
    stages = train.add_subparsers(metavar="STAGE", required=True)
    for name, (recipe, summary) in STAGES.items():
        _add_recipe(stages, name, recipe, summary)


def add_data(commands: Any) -> None:
    about = "prompts and training data"
    data = commands.add_parser("data", help=about, description=f"{about.capitalize()}.", epilog=SPLITS_EXAMPLES)
    actions = data.add_subparsers(metavar="ACTION", required=True)
    _add_recipe(actions, "build", BUILD, "Draw and judge many candidates, the raw material of SFT.")
    _add_splits(actions)


def _add_recipe(commands: Any, name: str, recipe: Recipe, summary: str) -> None:
    usage = "%(prog)s [--config FILE] [--resume] [--json] [--KEY VALUE ...]"
    short = summary[0].lower() + summary[1:-1]
    parser = commands.add_parser(name, help=short, description=summary, usage=usage, recipe=recipe)
    parser.add_argument("--config", metavar="FILE", help="recipe, YAML; without it every key has its default")
    parser.add_argument("--resume", action="store_true", help="continue the run in the recipe's folder")
    add_json(parser)
    parser.set_defaults(command="train", recipe=recipe, overrides=[])


def _add_splits(commands: Any) -> None:
    summary = "show a world's prompts and edits, by split and family"
    parser = add_command(commands, "splits", "data_splits", summary, SPLITS_EXAMPLES)
    parser.add_argument("--world", metavar="NAME", default=DEFAULT, help="its name, a Python file, or module:name")
    parser.add_argument("--examples", metavar="N", type=at_least(0), default=5, help="prompts or edits shown a split")
    add_json(parser)
