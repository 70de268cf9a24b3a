"""Rewards of the user's own, judges that think first, and ours as others call it."""

from __future__ import annotations

import asyncio
import json
import math

import numpy as np
import pytest
from PIL import Image

from endpoint_server import QUICK, Call, Endpoint, item, reward
from janus_r1.chain import Task
from janus_r1.errors import UserError
from janus_r1.rewards.build import build_rewards
from janus_r1.rewards.chat import Chat
from janus_r1.rewards.janus import JanusReward
from janus_r1.rewards.python import PythonReward
from janus_r1.rewards.score import Abstained, Item, RewardRecipe, claims_of


def scores(body: str, items: list[Item], folder, name: str = "score") -> list:
    file = folder / "my_rewards.py"
    file.write_text(body)
    return build_rewards([RewardRecipe("python", path=f"{file}:{name}")]).score(items)


def test_a_function_in_a_file_gets_images_prompts_and_columns(tmp_path):
    body = """
def score(prompts, images, wanted, **kwargs):
    assert kwargs["sources"] is None and images[0].mode == "RGB"
    return [float(image.getpixel((0, 0))[0] == w and "red" in p) for p, image, w in zip(prompts, images, wanted)]
"""
    items = [(Task("a red cat", columns={"wanted": value}), item(7)[1]) for value in (7, 8)]
    assert scores(body, items, tmp_path) == [1.0, 0.0]


def test_it_may_be_async_and_may_abstain(tmp_path):
    body = """
import asyncio
async def score(images):
    await asyncio.sleep(0)
    return [None, 0.25, float("nan"), 7, "x"]
"""
    given = scores(body, [item()] * 5, tmp_path)
    assert given[1] == 0.25
    assert [s.cause for s in given if isinstance(s, Abstained)] == [
        "none given", "not a number", "not a score", "not a number",
    ]  # fmt: skip


def test_it_may_score_claim_by_claim(tmp_path):
    body = """
def score(images):
    return [{"a ring": 1.0, "it is red": 0.5}, {"a ring": None, "it is red": 1}, {}, {"a ring": 2}]
"""
    first, *others = scores(body, [item()] * 4, tmp_path)
    assert first == 0.75 and claims_of(first) == (("a ring", 1.0), ("it is red", 0.5))
    assert [one.cause for one in others] == ["none given", "none given", "not a score"]


def test_an_async_function_works_inside_a_running_loop():
    async def score(images, prompts):
        return [0.5 for _ in images]

    async def notebook():
        return PythonReward(score).score([item()])

    assert asyncio.run(notebook()) == [0.5]


def test_an_edit_is_scored_beside_its_source(tmp_path):
    body = """
def score(images, sources):
    return [float(s is not None and s.size == i.size) for i, s in zip(images, sources)]
"""
    edit = (Task("make it red", item(2)[1]), item(1)[1])
    assert scores(body, [edit, item()], tmp_path) == [1.0, 0.0]


def test_a_function_that_raises_abstains_for_its_batch(tmp_path):
    given = scores("def score(images):\n    raise RuntimeError('no GPU')\n", [item()] * 2, tmp_path)
    assert [s.why for s in given] == ["RuntimeError: no GPU"] * 2


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("def other(images): ...", "has no function 'score'; it has other"),
        ("import nowhere_at_all", "cannot be imported: ModuleNotFoundError"),
        ("def score(prompts): ...", "it needs images"),
        ("score = 7", "is no function"),
        ("def score(images):\n    return [1.0]", "gave 1 scores for 2 images"),
        ("def score(images):\n    return 1.0", "must return a list of numbers"),
    ],
)
def test_mistakes_are_one_line(body, said, tmp_path):
    with pytest.raises(UserError, match=said):
        scores(body, [item()] * 2, tmp_path)


def test_paths_that_are_none(tmp_path):
    for path, said in (("rewards", "names no function"), (f"{tmp_path}/no.py:score", "no such file")):
        with pytest.raises(UserError, match=said):
            build_rewards([RewardRecipe("python", path=path)])
    with pytest.raises(UserError, match="needs a path"):
        build_rewards([RewardRecipe("python")])
    with pytest.raises(UserError, match=r"path means nothing for the kind world"):
        build_rewards([RewardRecipe("world", path="x:y")])
    assert build_rewards([RewardRecipe("python", path="operator:itemgetter")])


# ------------------------------------------------------------------------------- endpoint judges


def thinking(tokens: list[str], text: str, reasoning: str | None = None):
    """Answers with these tokens; the last yes or no has 0.8 of the probability."""

    def answer(call: Call) -> None:
        def entry(token: str) -> dict:
            other = "no" if token.strip().lower() == "yes" else "yes"
            top = [{"token": token, "logprob": math.log(0.8)}, {"token": other, "logprob": math.log(0.2)}]
            return {"token": token, "logprob": math.log(0.8), "top_logprobs": top}

        message = {"content": text, **({"reasoning_content": reasoning} if reasoning else {})}
        content = [entry(token) for token in tokens]
        call.reply(json.dumps({"choices": [{"message": message, "logprobs": {"content": content}}]}))

    return answer


@pytest.mark.parametrize(
    ("tokens", "text", "reasoning"),
    [
        (["<think>", "no", " idea", "</think>", "\n\n", "Yes"], "<think>no idea</think>\n\nYes", None),
        (["<thi", "nk>", "no", "</th", "ink>", "Yes", "."], "<think>no</think>Yes.", None),
        (["no", " idea", "\n", "Yes", "."], "Yes.", "no idea"),  # thoughts kept apart, log-probs of all tokens
        (["Yes", "."], "Yes.", "no idea"),  # thoughts kept apart, log-probs of the answer's tokens
        (["Yes"], "Yes", None),  # none at all
    ],
)
def test_a_judge_that_thinks_first_is_read_behind_its_thoughts(tokens, text, reasoning):
    with Endpoint(thinking(tokens, text, reasoning)) as server:
        (score,) = reward(server, max_tokens=64).score([item()])
        assert score == pytest.approx(0.8)
        assert server.calls[0].body["max_tokens"] == 64


def test_thoughts_without_an_end_abstain():
    with Endpoint(thinking(["<think>", "no", " idea"], "<think>no idea")) as server:
        (score,) = reward(server, max_tokens=3).score([item()])
        assert isinstance(score, Abstained) and "thoughts filled max_tokens" in score.why


def test_extra_body_is_sent_and_belongs_to_the_answer():
    body = {"chat_template_kwargs": {"enable_thinking": False}}
    with Endpoint(lambda call: call.probabilities(yes=0.9, no=0.1)) as server:
        judge = reward(server, extra_body=body)
        assert judge.score([item()]) == [pytest.approx(0.9)]
        assert server.calls[0].body["chat_template_kwargs"] == {"enable_thinking": False}
        reward(server, cache=judge.cache).score([item()])
        assert len(server.calls) == 2  # another manner of asking is another question


def test_text_is_taken_only_on_request():
    with Endpoint(lambda call: call.say("<think>No?</think> Yes, it does.")) as server:
        (score,) = reward(server).score([item()])
        assert isinstance(score, Abstained) and score.cause == "no log-probs"
        judge = reward(server, text_fallback=True)
        assert judge.score([item()]) == [1.0]
        assert judge.fallbacks == {"1 or 0 by the word, without log-probs": 1}
    with Endpoint(lambda call: call.say("Perhaps.")) as server:
        (score,) = reward(server, text_fallback=True).score([item()])
        assert isinstance(score, Abstained)


def test_a_bare_address_gets_v1():
    for given in ("http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/chat/completions"):
        assert Chat(given, "m").url == "http://h:1/v1/chat/completions"
    assert Chat("http://h/api/openai", "m").url == "http://h/api/openai/chat/completions"


def test_replicas_share_the_work_and_stand_in_for_each_other():
    def broken(call: Call) -> None:
        call.reply("no", 500)

    def works(call: Call) -> None:
        call.probabilities(yes=0.7, no=0.3)

    with Endpoint(works) as one, Endpoint(broken) as two:
        judge = reward(one)
        judge.chat = Chat(f"{one.url}, {two.url}", "judge", None, QUICK)
        given = judge.score([item(value) for value in range(8)])
        assert given == [pytest.approx(0.7)] * 8 and one.calls and two.calls


# ------------------------------------------------------------------------------------ ours for others


def test_janus_reward_is_a_trl_reward_function(tiny):
    ours = JanusReward(tiny, batch_size=2)
    side = tiny.image_size
    pixels = [np.full((side, side, 3), value, np.uint8) for value in (0, 120, 250)]
    plain = ours.score([(Task("a red circle"), p) for p in pixels])
    pictures = [Image.fromarray(p) for p in pixels]
    assert ours(prompts=["a red circle"] * 3, images=pictures) == plain
    conversation = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a red circle"}]}]
    given = ours(prompts=[conversation] * 3, completions=["text"] * 3, images=[[p] for p in pictures], step=3)
    assert given == plain
    assert ours(["a red circle", "<begin_of_image>"], pictures[:2]) == [pytest.approx(plain[0], abs=1e-5), None]
    assert ours.__name__ == "janus"
    with pytest.raises(UserError, match="1 prompts, 3 images"):
        ours(["a red circle"], pictures)
    with pytest.raises(UserError, match="images are uint8"):
        ours(["a red circle"], [pixels[0] / 255])
