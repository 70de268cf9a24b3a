"""The help of recipes, read from their source."""

from __future__ import annotations

import subprocess
import sys

from janus_r1.options import keys_text, recipe_keys
from test_recipe import Listing, Recipe


def text_of(cls: type) -> str:
    return keys_text(recipe_keys(cls.__module__, cls.__qualname__))


def test_help_lists_every_key_with_type_default_and_docstring():
    text = text_of(Recipe)
    assert "--run.steps INT  (default: 7)\n        How many steps." in text
    assert "--lr FLOAT  (default: 0.003)\n        Peak learning rate." in text
    assert "--history full|last  (default: 'full')" in text


def test_help_lists_the_keys_of_list_entries():
    text = text_of(Listing)
    assert "--parts list of Needs  (default: list())\n        Several of them." in text
    assert "--parts.N.model STR  (default: required)" in text


def test_help_follows_imports_and_spells_out_named_types():
    text = keys_text(recipe_keys("janus_r1.train.rl", "RlRecipe"))
    assert "--task draw|edit|both  (default: 'draw')" in text
    assert "--policy guided|tempered|conditional  (default: 'guided')" in text
    assert "--lora.rank INT >= 0  (default: 0)" in text and "--rewards.N.kind" in text


def test_help_of_a_real_recipe_imports_nothing_heavy():
    code = "import sys; from janus_r1.options import keys_text, recipe_keys\n"
    code += "print(keys_text(recipe_keys('janus_r1.worlds.shapes.training.vq', 'VqRecipe')))\n"
    code += "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--run.steps INT >= 1  (default: 4500)" in done.stdout
    assert "--codes INT >= 2  (default: 2048)" in done.stdout
    assert keys_text(recipe_keys("janus_r1.worlds.shapes.training.vq", "VqRecipe")) in done.stdout
