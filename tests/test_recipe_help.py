"""The help of recipes, read from their source."""

from __future__ import annotations

import subprocess
import sys

from janus_r1.recipe_help import help_of, help_text
from test_recipe import Listing, Recipe


def test_help_lists_every_key_with_type_default_and_docstring():
    text = help_text(Recipe)
    assert "--run.steps INT  (default: 7)\n        How many steps." in text
    assert "--lr FLOAT  (default: 0.003)\n        Peak learning rate." in text
    assert "--history full|last  (default: 'full')" in text


def test_help_lists_the_keys_of_list_entries():
    text = help_text(Listing)
    assert "--parts list[Needs]  (default: list())\n        Several of them." in text
    assert "--parts.N.model STR  (default: required)" in text


def test_help_follows_imports_and_spells_out_named_types():
    text = help_of("janus_r1.train.rl.stage", "RlRecipe")
    assert "--task draw|edit|both  (default: 'draw')" in text
    assert "--policy guided|tempered|conditional  (default: 'guided')" in text
    assert "--lora.rank INT  (default: 0)" in text and "--rewards.N.kind" in text


def test_help_of_a_real_recipe_imports_nothing_heavy():
    code = "import sys; from janus_r1.recipe_help import help_of\n"
    code += "print(help_of('janus_r1.worlds.shapes.training.vq', 'VqRecipe'))\n"
    code += "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--run.steps INT  (default: 4500)" in done.stdout
    assert "--codes INT  (default: 2048)" in done.stdout
    assert help_of("janus_r1.worlds.shapes.training.vq", "VqRecipe") in done.stdout
