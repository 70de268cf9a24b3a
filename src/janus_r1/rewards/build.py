"""Rewards from a recipe: a list of them, each of a kind with the keys that this kind knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields

from janus_r1.errors import UserError, require
from janus_r1.rewards.cache import Cache
from janus_r1.rewards.chat import Chat, Patience, api_key
from janus_r1.rewards.endpoint import EndpointReward
from janus_r1.rewards.python import PythonReward, load_function
from janus_r1.rewards.score import Ensemble, OnAbstain, Reward, RewardRecipe
from janus_r1.rewards.world import WorldReward

COMMON = {"kind", "weight", "name"}
OF_EDITS = {"follow_weight", "preserve_weight"}
OF_REQUESTS = {
    "max_tokens",
    "extra_body",
    "text_fallback",
    "concurrency",
    "tries",
    "timeout_s",
    "backoff_s",
    "batch_s",
    "cache",
}
KNOWN = {
    "world": {"world", "binary", "joint", *OF_EDITS},
    "endpoint": {"model", "url", "api_key_env", "decompose_words", "min_mass", "top_logprobs", *OF_EDITS, *OF_REQUESTS},
    "local_vlm": {"model", "min_mass", "batch_size", "dtype", *OF_EDITS},
    "janus": {"model", "batch_size", "dtype"},
    "python": {"path"},
}


def build_rewards(recipes: Sequence[RewardRecipe], device: str = "cpu", on_abstain: OnAbstain = "drop") -> Ensemble:
    """All rewards of a recipe, as one. ``device`` is for those that run in this process.

    Raises:
        UserError: for an empty list, and for what makes one of them impossible; nothing is loaded before.
    """
    if not recipes:
        raise UserError("there is no reward: list at least one under rewards, such as {kind: world}")
    for index, recipe in enumerate(recipes):
        _check(recipe, f"rewards[{index}]")
    names = _names(recipes)
    members = [(_BUILD[r.kind](r, name, str(device)), r.weight) for r, name in zip(recipes, names, strict=True)]
    return Ensemble(members, on_abstain)


def _check(recipe: RewardRecipe, place: str) -> None:
    plain = RewardRecipe(recipe.kind)
    for key in (known.name for known in fields(recipe)):
        if key not in COMMON | KNOWN[recipe.kind] and getattr(recipe, key) != getattr(plain, key):
            raise UserError(f"{place}.{key} means nothing for the kind {recipe.kind}: remove it")
    if "model" in KNOWN[recipe.kind]:
        require(bool(recipe.model), f"{place} of the kind {recipe.kind} needs a model")
    if recipe.kind == "python":
        require(bool(recipe.path), f"{place} of the kind python needs a path, such as my_rewards.py:score")
    if recipe.kind == "endpoint":
        require(bool(recipe.url), f"{place} of the kind endpoint needs a url, such as http://localhost:8000/v1")
    weights = recipe.follow_weight + recipe.preserve_weight
    require(weights > 0, f"{place}: follow_weight and preserve_weight must not both be 0")


def _names(recipes: Sequence[RewardRecipe]) -> list[str]:
    """Given names, else kinds: world, endpoint, endpoint 2."""
    used: Counter[str] = Counter()
    names = []
    for recipe in recipes:
        name = recipe.name or recipe.kind
        used[name] += 1
        names.append(name if recipe.name or used[name] == 1 else f"{name} {used[name]}")
    return names


def _world(recipe: RewardRecipe, name: str, device: str) -> Reward:
    return WorldReward(recipe.binary, name, (recipe.follow_weight, recipe.preserve_weight), recipe.joint, recipe.world)


def _endpoint(recipe: RewardRecipe, name: str, device: str) -> Reward:
    patience = Patience(recipe.tries, recipe.timeout_s, recipe.backoff_s)
    chat = Chat(str(recipe.url), str(recipe.model), api_key(recipe.api_key_env), patience)
    return EndpointReward(
        chat,
        Cache(recipe.cache),
        name=name,
        concurrency=recipe.concurrency,
        decompose_words=recipe.decompose_words,
        edit_weights=(recipe.follow_weight, recipe.preserve_weight),
        top_logprobs=recipe.top_logprobs,
        min_mass=recipe.min_mass,
        batch_s=recipe.batch_s,
        max_tokens=recipe.max_tokens,
        extra_body=recipe.extra_body,
        text_fallback=recipe.text_fallback,
    )


def _local_vlm(recipe: RewardRecipe, name: str, device: str) -> Reward:
    from janus_r1.rewards.local_vlm import LocalVlmReward, Vlm  # torch and transformers only where they are needed

    return LocalVlmReward(
        Vlm.load(str(recipe.model), device, recipe.dtype),
        batch_size=recipe.batch_size,
        edit_weights=(recipe.follow_weight, recipe.preserve_weight),
        min_mass=recipe.min_mass,
        name=name,
    )


def _janus(recipe: RewardRecipe, name: str, device: str) -> Reward:
    from janus_r1.model.loading import load
    from janus_r1.rewards.janus import JanusReward

    return JanusReward(load(str(recipe.model), recipe.dtype, device), recipe.batch_size, name)


def _python(recipe: RewardRecipe, name: str, device: str) -> Reward:
    return PythonReward(load_function(str(recipe.path)), name)


_BUILD: dict[str, Callable[[RewardRecipe, str, str], Reward]] = {
    "world": _world,
    "endpoint": _endpoint,
    "local_vlm": _local_vlm,
    "janus": _janus,
    "python": _python,
}
