"""What fields may hold: the same bounds for the command line, YAML and Python."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import pytest

from janus_r1.chain import Settings
from janus_r1.errors import UserError
from janus_r1.eval.benchmark import DrawOptions
from janus_r1.eval.judge import JudgeOptions
from janus_r1.eval.understanding import TokenizerOptions
from janus_r1.eval.world import EvalOptions
from janus_r1.fields import Above0, Checked, Count, Positive, Range, Share, Typed, convert
from janus_r1.recipe import load_recipe


@dataclass
class Recipe(Checked):
    steps: Positive = 10
    lr: Above0 = 1e-3
    keep: Share = 0.5
    limit: Count | None = None
    mix: tuple[Annotated[float, Range(ge=0)], ...] = (0.5, 0.5)
    out: str = "runs/x"
    file: str | None = None
    batch: Positive | Literal["auto"] = 64


BAD = [
    ("steps", "0", "steps must be at least 1, not 0"),
    ("steps", "-1", "at least 1"),
    ("steps", "9" * 400, "steps must be int"),
    ("lr", "-1", "lr must be above 0, not -1.0"),
    ("lr", "nan", "lr must be float"),
    ("lr", "inf", "lr must be float"),
    ("lr", ".inf", "lr must be float"),
    ("keep", "1.5", "keep must be at least 0 and at most 1"),
    ("limit", "-3", "limit must be at least 0"),
    ("mix", "0.5,-0.5", "mix[1] must be at least 0"),
    ("mix", "[0.5, .nan]", "mix must be a list of float"),
    ("batch", "0", "batch must be at least 1"),
    ("batch", "some", "int or auto"),
    ("out", "a\0b", "NUL"),
    ("out", "a\udcffb", "not Unicode"),
]


def complaint(*arguments) -> str:
    with pytest.raises(UserError) as caught:
        load_recipe(Recipe, *arguments)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200
    return str(caught.value)


@pytest.mark.parametrize(("key", "value", "expected"), BAD)
def test_a_value_out_of_range_is_refused_on_the_command_line(key, value, expected):
    assert expected in complaint(None, [f"--{key}", value])


@pytest.mark.parametrize(("key", "value", "expected"), [case for case in BAD if case[0] != "out"])
def test_and_in_yaml(tmp_path, key, value, expected):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"{key}: [{value}]\n" if "," in value and value[0] != "[" else f"{key}: {value}\n")
    assert expected in complaint(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("steps", 0), ("steps", 1.5), ("steps", True), ("steps", "5"), ("lr", float("nan")), ("lr", float("inf")),
        ("lr", "1e-3"), ("lr", None), ("keep", -0.1), ("limit", -1), ("mix", (0.1, -1.0)), ("mix", 3 + 4j), ("out", 5),
        ("out", None), ("file", 7), ("batch", "most"),
    ],
)  # fmt: skip
def test_and_in_python(key, value):
    with pytest.raises(UserError, match=key):
        Recipe(**{key: value})
    with pytest.raises(UserError, match=key):
        replace(Recipe(), **{key: value})


def test_a_blank_word_is_no_number():
    with pytest.raises(UserError, match="limit must be int or None"):
        load_recipe(Recipe, None, ["--limit", ""])


def test_what_fits_takes_the_type_of_its_field(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("lr: 1e-4\nsteps: 5.0\nmix: [1, 2e-1]\n")
    assert load_recipe(Recipe, path) == Recipe(steps=5, lr=0.0001, mix=(1.0, 0.2))
    typed = ["--file", "2024", "--out", "null", "--batch", "auto", "--limit", "null"]
    assert load_recipe(Recipe, None, typed) == Recipe(file="2024", out="null", batch="auto")
    assert Recipe(steps=np.int64(3), lr=np.float32(0.5), keep=1) == Recipe(3, 0.5, 1.0)


def test_dates_and_huge_values_are_complained_of_in_one_short_line(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("out: 2024-01-01\n")
    assert "out must be text" in complaint(path)
    path.write_text(f"steps: [{'9, ' * 5000}]\n")
    assert "steps must be int" in complaint(path)


@pytest.mark.parametrize(
    "wish",
    [{"guidance": float("inf")}, {"temperature": float("nan")}, {"temperature": -1}, {"top_p": 0}, {"rounds": 0},
     {"seed": None}, {"seed": 2**63}, {"history": "none"}, {"top_k": -1}],
)  # fmt: skip
def test_settings_are_checked_however_they_are_made(wish):
    with pytest.raises(UserError, match=next(iter(wish))):
        Settings(**wish)


def test_a_choice_is_matched_by_type_too():
    assert convert(Typed("1"), Literal[1, 2], "n") == 1
    with pytest.raises(UserError):
        convert(True, Literal[1, 2], "n")


@pytest.mark.parametrize(
    ("kind", "wish"),
    [(EvalOptions, {"rounds": (1, 0)}), (EvalOptions, {"samples": 0}), (EvalOptions, {"variety": -1}),
     (EvalOptions, {"kind": "see"}), (JudgeOptions, {"samples": 0}), (JudgeOptions, {"guidance": float("nan")}),
     (JudgeOptions, {"limit": 0}), (TokenizerOptions, {"scenes": 0}), (TokenizerOptions, {"batch": 0}),
     (DrawOptions, {"samples": 0}),     (DrawOptions, {"shard": (1, 0)}), (DrawOptions, {"batch": -1})],
)  # fmt: skip
def test_options_of_measurements_are_checked_however_they_are_made(kind, wish):
    with pytest.raises(UserError, match=next(iter(wish))):
        kind(**wish)
