"""Every option of ``janus-r1`` and the texts of its help, a family of commands a file; imports nothing heavy."""

from __future__ import annotations

from janus_r1.commands.options.benchmarks import add_eval
from janus_r1.commands.options.convert import add_average, add_convert
from janus_r1.commands.options.drawing import PRESETS, add_edit, add_generate, add_judge
from janus_r1.commands.options.parser import Parser
from janus_r1.commands.options.serving import add_serve
from janus_r1.commands.options.training import add_data, add_train

DESCRIPTION = """\
A unified multimodal model that draws, judges its own drawing, and redraws until it is satisfied."""

EXAMPLES = """\
examples:
  janus-r1 generate "a red circle left of a blue square"
  janus-r1 edit drawing.png "make the circle blue"
  janus-r1 judge drawing.png --text "three green stars"
  janus-r1 data splits
  janus-r1 train sft --config shapes/sft --run.steps 500
  janus-r1 eval world --split held_out --limit 50
  janus-r1 serve
  janus-r1 convert deepseek-ai/Janus-Pro-1B models/janus-pro-1b

janus-r1 COMMAND --help says more about each."""


def build_parser(preset: str | None = None) -> Parser:
    """``preset`` is the one that ``generate`` was given: its values become the defaults there."""
    parser = Parser(prog="janus-r1", description=DESCRIPTION, epilog=EXAMPLES)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    add_generate(commands).set_defaults(**PRESETS.get(preset or "", {}))
    for add in (add_edit, add_judge, add_train, add_data, add_eval, add_convert, add_average, add_serve):
        add(commands)
    return parser
