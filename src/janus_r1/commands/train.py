"""``janus-r1 train STAGE`` and ``janus-r1 data build``: run what a recipe describes."""

from __future__ import annotations

import argparse
import importlib
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from janus_r1.commands.checks import check_writable
from janus_r1.commands.terminal import answers_only, print_json, say
from janus_r1.recipe import load_recipe


def run(args: argparse.Namespace) -> None:
    """``args.recipe`` names (module, recipe class, function); the function returns the result's path."""
    module_name, recipe_name, function = args.recipe
    module = importlib.import_module(module_name)
    recipe = load_recipe(getattr(module, recipe_name), args.config, args.overrides)
    check_writable(Path(_out(recipe)))
    began = time.monotonic()
    with answers_only(args.json):
        result = getattr(module, function)(recipe, args.resume)
    if os.environ.get("RANK", "0") != "0":  # one process of several speaks for all
        return
    if args.json:
        seconds = round(time.monotonic() - began, 2)
        print_json({"result": str(result), "seconds": seconds, "recipe": asdict(recipe)})
    else:
        say(f"wrote {result}")


def _out(recipe: Any) -> str:
    """Recipes of training stages keep the folder under ``run``."""
    return str(recipe.run.out if hasattr(recipe, "run") else recipe.out)
