"""Several rewards as one, and rewards from a recipe."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from endpoint_server import Endpoint, by_brightness
from janus_r1.chain import Task
from janus_r1.errors import UserError
from janus_r1.recipe import load_recipe
from janus_r1.rewards.build import _check, build_rewards
from janus_r1.rewards.score import Abstained, Ensemble, RewardRecipe

ITEMS = [(Task("a circle"), np.zeros((64, 64, 3), np.uint8))] * 3
DOCS = (Path(__file__).parent.parent / "docs" / "rewards.md").read_text(encoding="utf-8")


class Fixed:
    """Gives the scores it was made with."""

    def __init__(self, name, *scores):
        self.name, self.scores = name, list(scores)

    def score(self, items):
        return self.scores


@dataclass
class Recipe:
    rewards: list[RewardRecipe] = field(default_factory=list)


# -------------------------------------------------------------------------------------- ensemble


def test_the_weighted_mean():
    together = Ensemble([(Fixed("a", 1.0, 0.0, 0.5), 3.0), (Fixed("b", 0.0, 0.0, 1.0), 1.0)])
    assert together.score(ITEMS) == [0.75, 0.0, 0.625]
    assert not together.abstentions


def test_a_member_that_abstains_drops_the_item_or_leaves_it_to_the_others():
    def members():
        timed_out = Abstained("HTTP 500: out of memory")
        return [(Fixed("a", timed_out, timed_out, 0.5), 3.0), (Fixed("b", 0.2, Abstained("bad"), 1.0), 1.0)]

    strict, lenient = Ensemble(members()), Ensemble(members(), "renormalise")
    assert strict.score(ITEMS) == [Abstained("a, HTTP 500: out of memory")] * 2 + [0.625]
    assert lenient.score(ITEMS) == [pytest.approx(0.2), Abstained("a, HTTP 500: out of memory"), 0.625]
    assert strict.abstentions == lenient.abstentions == Counter({("a", "HTTP 500"): 2, ("b", "bad"): 1})


@pytest.mark.parametrize("fault", [float("nan"), -0.1, 1.01, float("inf")])
def test_what_is_no_score_abstains(fault):
    together = Ensemble([(Fixed("a", fault, 0.5, 0.5), 1.0)])
    first, *rest = together.score(ITEMS)
    assert isinstance(first, Abstained) and rest == [0.5, 0.5]
    assert together.abstentions == Counter({("a", "not a score"): 1})


def test_a_missing_score_is_an_error_and_not_a_shift():
    with pytest.raises(ValueError, match="2 scores for 3 items"):
        Ensemble([(Fixed("a", 0.1, 0.2), 1.0)]).score(ITEMS)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "no reward"),
        ([(Fixed("a"), 0.0)], "weight of the reward a"),
        ([(Fixed("a"), float("nan"))], "weight of the reward a"),
        ([(Fixed("a"), 1.0), (Fixed("a"), 1.0)], "one name"),
    ],
)
def test_ensembles_that_cannot_be(members, message):
    with pytest.raises(UserError, match=message):
        Ensemble(members)
    with pytest.raises(UserError, match="drop or renormalise"):
        Ensemble([(Fixed("a"), 1.0)], "ignore")


# ---------------------------------------------------------------------------------------- recipes


def test_a_recipe_becomes_an_ensemble(tmp_path, tiny_folder, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "secret\n")
    with Endpoint(by_brightness) as server:
        path = tmp_path / "recipe.yaml"
        path.write_text(f"""\
rewards:
- {{kind: world, weight: 2, binary: true}}
- {{kind: endpoint, model: judge, url: {server.url}, api_key_env: JUDGE_KEY, backoff_s: 1e-3, top_logprobs: 5}}
- {{kind: endpoint, model: other, url: {server.url}, cache: {tmp_path}/answers.sqlite}}
- {{kind: janus, model: {tiny_folder}, weight: 1e-1, name: myself}}
""")
        together = build_rewards(load_recipe(Recipe, path).rewards)
        columns = together.by_member(ITEMS[:1])
        assert server.calls[0].headers["Authorization"] == "Bearer secret"
        assert server.calls[0].body["top_logprobs"] == 5
    assert list(columns) == ["world", "endpoint", "endpoint 2", "myself"]
    assert [weight for _, weight in together.members] == [2.0, 1.0, 1.0, 0.1]
    assert columns["world"] == columns["endpoint"] == [0.0]
    assert together.merge(columns) == [pytest.approx(0.1 * columns["myself"][0] / 4.1)]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"kind": "wrld"}, "kind must be world or endpoint or local_vlm or janus"),
        ({"kind": "world", "weight": 0}, "weight must be above 0"),
        ({"kind": "world", "weight": float("nan")}, "weight must be float, not nan"),
        ({"kind": "world", "url": "http://h/v1"}, "url means nothing for the kind world"),
        ({"kind": "janus", "model": "tiny-sft", "cache": "x"}, "cache means nothing for the kind janus"),
        ({"kind": "endpoint", "model": "m"}, "needs a url"),
        ({"kind": "endpoint", "url": "http://h/v1"}, "needs a model"),
        ({"kind": "endpoint", "model": "m", "url": "nowhere"}, "not the address"),
        ({"kind": "endpoint", "model": "m", "url": "http://h/v1", "api_key_env": "NO_SUCH"}, "NO_SUCH, which is not"),
        ({"kind": "endpoint", "model": "m", "url": "http://h/v1", "tries": 0}, "tries must be at least 1"),
        ({"kind": "local_vlm"}, "needs a model"),
        ({"kind": "local_vlm", "model": "m", "follow_weight": 0, "preserve_weight": 0}, "must not both be 0"),
        ({"kind": "local_vlm", "model": "/no/such/folder"}, "cannot load the judge /no/such/folder"),
        ({"kind": "local_vlm", "model": "m", "min_mass": 1.5}, "min_mass"),
        ({"kind": "janus", "model": "no-such-model"}, "no model 'no-such-model'"),
    ],
)
def test_recipes_that_cannot_be(recipe, message, monkeypatch):
    monkeypatch.delenv("NO_SUCH", raising=False)
    with pytest.raises(UserError, match=message) as caught:
        build_rewards([RewardRecipe(**recipe)])
    assert "\n" not in str(caught.value)


def test_an_empty_list_and_a_name_used_twice():
    with pytest.raises(UserError, match="at least one"):
        build_rewards([])
    with pytest.raises(UserError, match="one name"):
        build_rewards([RewardRecipe("world"), RewardRecipe("world", name="world")])


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", DOCS, flags=re.DOTALL))
def test_the_documents_recipes_load(block, tmp_path):
    (tmp_path / "recipe.yaml").write_text(block)
    recipes = load_recipe(Recipe, tmp_path / "recipe.yaml").rewards
    for index, recipe in enumerate(recipes):
        _check(recipe, f"rewards[{index}]")
    assert recipes


def test_the_documents_python_runs(capsys):
    ensemble, of_a_model = re.findall(r"```python\n(.*?)```", DOCS, flags=re.DOTALL)
    exec(compile(ensemble, "rewards.md", "exec"), {})
    assert capsys.readouterr().out == "[0.0]\nCounter()\n"
    exec(compile(of_a_model, "rewards.md", "exec"), {})
    (reward,) = json.loads(capsys.readouterr().out)
    assert 0 <= reward <= 1


def test_an_endpoint_needs_no_torch():
    code = "import sys; from janus_r1.rewards import build, endpoint, score, world; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
