"""Recipes: YAML, overrides and checks."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from janus_r1.cli import parse
from janus_r1.errors import UserError
from janus_r1.recipe import find_recipe, load_recipe
from janus_r1.train.sft import SftRecipe

RECIPES = Path(__file__).resolve().parent.parent / "src" / "janus_r1" / "recipes"


@dataclass
class Inner:
    steps: int = 10
    """How many steps."""
    out: str = "runs/x"


@dataclass
class Recipe:
    run: Inner = field(default_factory=lambda: Inner(steps=7))
    lr: float = 3e-3
    """Peak learning rate."""
    history: Literal["full", "last"] = "full"
    limit: int | None = None
    rounds: tuple[int, ...] = (1, 3)
    resume: bool = False
    weights: dict[str, float] = field(default_factory=dict)
    mix: list[float] = field(default_factory=lambda: [0.5, 0.5])


@dataclass
class Needs:
    model: str
    seed: int = 0


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def message(*arguments) -> str:
    with pytest.raises(UserError) as caught:
        load_recipe(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults_of_the_outer_recipe_reach_the_inner_one():
    assert load_recipe(Recipe).run.steps == 7


def test_yaml_then_overrides(tmp_path):
    path = write(tmp_path, "lr: 1e-3\nrun:\n  out: runs/y\nweights: {a: 1}\n")
    recipe = load_recipe(Recipe, path, ["--run.steps", "5", "--history=last", "--limit", "3", "--rounds", "2,4"])
    assert recipe == Recipe(Inner(5, "runs/y"), 1e-3, "last", 3, (2, 4), False, {"a": 1.0})


def test_a_key_of_what_holds_no_keys_is_refused(tmp_path):
    assert "run must hold keys with values" in message(Recipe, write(tmp_path, "run: fast\n"), ["--run.steps", "5"])


def test_typed_values_take_the_type_of_their_field():
    recipe = load_recipe(Recipe, None, ["--run.out", "123", "--lr", "-1e-3", "--limit", "null", "--resume", "true"])
    assert (recipe.run.out, recipe.lr, recipe.limit, recipe.resume) == ("123", -1e-3, None, True)
    assert load_recipe(Recipe, None, ["--rounds", "2"]).rounds == (2,)
    assert load_recipe(Recipe, None, ["--rounds=[5, 6]"]).rounds == (5, 6)
    assert load_recipe(Recipe, None, ["--mix", "1,1e-1"]).mix == [1.0, 0.1]


def test_an_unknown_key_is_named_with_a_suggestion(tmp_path):
    assert "run.setps" in message(Recipe, None, ["--run.setps", "5"])
    assert "did you mean run.steps?" in message(Recipe, None, ["--run.setps", "5"])
    assert "did you mean history?" in message(Recipe, write(tmp_path, "histroy: last\n"))
    assert "known are run, lr" in message(Recipe, None, ["--zzz", "1"])


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("lr", "fast", "float"),
        ("run.steps", "1.5", "int"),
        ("run.steps", "true", "int"),
        ("run", "5", "run.steps"),
        ("history", "some", "full or last"),
        ("limit", "many", "int or None"),
        ("rounds", "1,x", "int"),
        ("mix", "a", "a list of float"),
        ("resume", "1", "true or false"),
    ],
)
def test_a_wrong_type_names_key_and_type(key, value, expected):
    text = message(Recipe, None, [f"--{key}", value])
    assert key in text and expected in text


def test_broken_files(tmp_path):
    assert "no such recipe" in message(Recipe, tmp_path / "missing.yaml")
    assert "line 3, column 1" in message(Recipe, write(tmp_path, "lr: 1\nrun: [1, 2\n"))
    assert "keys with values" in message(Recipe, write(tmp_path, "- 1\n- 2\n"))
    assert load_recipe(Recipe, write(tmp_path, "# nothing\n")) == Recipe()


def test_broken_overrides():
    assert "needs a value" in message(Recipe, None, ["--lr"])
    assert "needs a value" in message(Recipe, None, ["--lr", "--run.steps", "1"])
    assert "unexpected" in message(Recipe, None, ["lr", "1"])


def test_required_keys():
    assert "model" in message(Needs)
    assert load_recipe(Needs, None, ["--model", "m", "--seed", "3"]) == Needs("m", 3)


def test_a_recipe_of_the_package_has_its_name_with_and_without_an_ending(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_recipe("shapes/vq.yaml") == find_recipe("shapes/vq") == RECIPES / "shapes" / "vq.yaml"
    assert "did you mean shapes/vq?" in message(Recipe, "shapes/vq.yml")
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes" / "vq.yaml").touch()  # the user's own file comes first
    assert find_recipe("shapes/vq.yaml") == Path("shapes/vq.yaml")


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("*.yaml")), ids=str)
def test_every_recipe_of_the_repository_loads(path):
    """Its first line is the command that runs it."""
    first = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
    command = first.removeprefix("janus-r1 ").rpartition("-m janus_r1.cli ")[2]  # under accelerate launch, or not
    words = shlex.split(command)
    assert find_recipe(words[words.index("--config") + 1]) == path
    call = parse(words)
    assert call.keywords["recipe"] == load_recipe(type(call.keywords["recipe"]), path)


@dataclass
class Listing:
    parts: list[Needs] = field(default_factory=list)
    """Several of them."""


def test_a_list_of_dataclasses_is_filled_and_overridden_by_index(tmp_path):
    path = write(tmp_path, "parts:\n- model: a\n- {model: b, seed: 2}\n")
    assert load_recipe(Listing, path).parts == [Needs("a"), Needs("b", 2)]
    changed = load_recipe(Listing, path, ["--parts.1.seed", "7", "--parts.0.model=7"])
    assert changed.parts == [Needs("7"), Needs("b", 7)]
    assert load_recipe(Listing, None, ["--parts", "[{model: c, seed: 1}]"]).parts == [Needs("c", 1)]


def test_mistakes_in_a_list_of_dataclasses_name_the_entry(tmp_path):
    path = write(tmp_path, "parts: [{model: a}, {model: b}]\n")
    assert "parts is a list of 2" in message(Listing, path, ["--parts.2.seed", "7"])
    assert "parts is a list of 2" in message(Listing, path, ["--parts.0", "7"])
    assert "did you mean parts[1].seed?" in message(Listing, write(tmp_path, "parts: [{model: a}, {sed: 1}]\n"))
    assert "parts[0].seed must be int" in message(Listing, write(tmp_path, "parts: [{model: a, seed: x}]\n"))
    assert "lacks parts[0].model" in message(Listing, write(tmp_path, "parts: [{seed: 1}]\n"))
    assert "parts[0] must hold keys" in message(Listing, write(tmp_path, "parts: [a]\n"))


def test_one_folder_of_candidates_is_the_same_from_a_file_and_from_the_command_line(tmp_path):
    """A run is resumed only by an equal recipe."""
    path = write(tmp_path, "candidates: runs/drafts\nown_drafts: runs/drafts\n")
    typed = ["--candidates", "runs/drafts", "--own_drafts", "runs/drafts"]
    assert asdict(load_recipe(SftRecipe, path)) == asdict(load_recipe(SftRecipe, overrides=typed))
