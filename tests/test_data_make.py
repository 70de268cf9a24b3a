"""Prompts -> images -> scores -> a store: servers that fail, builds that are killed, and what it costs."""

from __future__ import annotations

import base64
import io
import json
import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from data_formats import picture
from endpoint_server import Call, Endpoint
from janus_r1.data.importing import import_data
from janus_r1.data.make_recipe import DrawerRecipe, MakeRecipe, WriterRecipe
from janus_r1.data.making import make_data
from janus_r1.data.store import Store
from janus_r1.errors import UserError
from janus_r1.rewards.score import RewardRecipe

PROMPTS = [f"a cat number {i}" for i in range(12)]


class Server(Endpoint):
    """Draws, judges and explains; every request fails by chance, and all are counted."""

    def __init__(self, failing: float = 0.0) -> None:
        super().__init__(self.answer)
        self.failing, self.random = failing, random.Random(0)
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()

    def answer(self, call: Call) -> None:
        if "images/generations" in call.path:
            kind, reply = "image", {"data": [{"b64_json": base64.b64encode(drawn(call.body["prompt"])).decode()}]}
        elif "logprobs" in call.body:
            kind, reply = "score", self.judged(call)
        elif isinstance(call.body["messages"][0]["content"], list):
            kind, reply = "reason", {"choices": [{"message": {"content": "No: there is no cat."}}]}
        else:
            kind, reply = "longer", {"choices": [{"message": {"content": f"a long {call.question()[-14:].strip()}"}}]}
        with self.lock:
            self.asked[kind] += 1
            fails = self.random.random() < self.failing
            self.answered[kind] += not fails
        if fails:
            call.reply("overloaded", 503)
        else:
            call.reply(json.dumps({**reply, "usage": {"total_tokens": 10}}))

    @staticmethod
    def judged(call: Call) -> dict:
        p = float(call.images()[0][0, 0, 0]) / 255
        top = [{"token": "yes", "logprob": float(np.log(max(p, 1e-9)))}]
        top.append({"token": "no", "logprob": float(np.log(max(1 - p, 1e-9)))})
        return {"choices": [{"logprobs": {"content": [{"token": "?", "top_logprobs": top}]}}]}


def drawn(prompt: str) -> bytes:
    """A picture whose brightness follows from its prompt, between 20 and 240."""
    value = 20 + sum(prompt.encode()) * 37 % 220
    stream = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def recipe(server: Server, folder, tries: int = 8, **more) -> MakeRecipe:
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    quick = {"tries": tries, "backoff_s": 0.001}
    drawers = more.pop("drawers", [DrawerRecipe("server", url=server.url, model="FLUX", concurrency=4, **quick)])
    rewards = more.pop("rewards", [RewardRecipe("endpoint", url=server.url, model="judge", concurrency=4, **quick)])
    options = {"part": 3, **more}
    return MakeRecipe(str(folder / "prompts.txt"), str(folder / "out"), drawers=drawers, rewards=rewards, **options)


def test_servers_that_fail_a_third_of_their_calls(tmp_path):
    with Server(failing=0.3) as server:
        made = make_data(recipe(server, tmp_path))
        store = Store(tmp_path / "out")
        assert [record.prompt for record in store] == PROMPTS and len(store.shards) == 4
        for record in store:
            assert record.image == drawn(record.prompt) and record.source == "FLUX"
            pixel = float(np.asarray(Image.open(io.BytesIO(record.image)))[0, 0, 0])
            assert record.score == pytest.approx(pixel / 255, abs=1e-6)
            assert record.reason == "No: there is no cat."
        assert made.cost.missing == {} and made.report.images == 12
        assert dict(server.answered) == {"image": 12, "score": 12, "reason": 12}
        assert made.cost.failed_tries == sum(server.asked.values()) - 36 > 0
        assert (made.cost.server_images, made.cost.questions, made.cost.tokens) == (12, 24, 360)


def test_what_a_judge_does_not_answer_is_left_out_not_scored_0(tmp_path):
    with Server() as server:
        plain = server.answer
        server.behaviours = [lambda call: call.reply("no", 500) if "logprobs" in call.body else plain(call)]
        with pytest.raises(UserError, match=r"not one image was made: not scored: HTTP 500 \(12\)"):
            make_data(recipe(server, tmp_path, tries=1))


def test_what_fails_is_counted_and_the_rest_is_kept(tmp_path):
    def partly(call: Call) -> None:
        refused = "images/generations" in call.path and call.body["prompt"].endswith(("1", "5"))
        call.reply("no", 400) if refused else plain(call)

    with Server() as server:
        plain = server.answer
        server.behaviours = [partly]
        made = make_data(recipe(server, tmp_path))
        assert made.report.images == 9 and made.cost.missing == {"not drawn: HTTP 400": 3}


CODE = """
import sys
sys.path[:0] = sys.argv[2].split(":")
from pathlib import Path
from types import SimpleNamespace
import test_data_make as own
own.make_data(own.recipe(SimpleNamespace(url=sys.argv[3]), Path(sys.argv[1])))
"""


def test_a_killed_build_pays_for_nothing_twice(tmp_path):
    with Server(failing=0.3) as server:
        plain = server.answer

        def slow(call: Call) -> None:
            time.sleep(0.05)
            plain(call)

        server.behaviours = [slow]
        arguments = [str(tmp_path), ":".join(sys.path), server.url]
        process = subprocess.Popen([sys.executable, "-c", CODE, *arguments], stderr=subprocess.PIPE)
        while sum(server.answered.values()) < 16:
            assert process.poll() is None, process.stderr.read().decode()[-500:]
            time.sleep(0.01)
        process.kill()
        process.wait()
        assert len(list((tmp_path / "out" / "data").glob("train-*"))) < 4
        server.behaviours = [plain]
        with pytest.raises(UserError, match="--resume"):
            make_data(recipe(server, tmp_path))
        made = make_data(recipe(server, tmp_path), resume=True)
        assert [record.prompt for record in Store(tmp_path / "out")] == PROMPTS and made.report.images == 12
        assert 36 <= sum(server.answered.values()) <= 36 + 4  # what was under way when it was killed


def test_a_dry_run_prices_and_does_nothing(tmp_path):
    with Server() as server:
        drawers = [DrawerRecipe("server", url=server.url, model="FLUX", images=4)]
        made = make_data(recipe(server, tmp_path, drawers=drawers, image_price=0.04, call_price=0.001), dry_run=True)
        assert (made.cost.server_images, made.cost.questions) == (48, 96)
        assert made.price == pytest.approx(48 * 0.04 + 96 * 0.001)
        assert not server.calls and not (tmp_path / "out").exists()


def test_images_of_several_drawers_stand_side_by_side(tmp_path):
    (tmp_path / "own").mkdir()
    for number in (0, 1):
        (tmp_path / "own" / f"{number}.png").write_bytes(picture(number))
        (tmp_path / "own" / f"{number}.txt").write_text(PROMPTS[number])
    import_data(tmp_path / "own", tmp_path / "mine")
    with Server() as server:
        drawers = [
            DrawerRecipe("server", url=server.url, model="FLUX", images=2),
            DrawerRecipe("store", folder=str(tmp_path / "mine")),
        ]
        made = make_data(recipe(server, tmp_path, drawers=drawers, reasons=False, licence="cc0"))
        store = Store(tmp_path / "out")
        assert [record.source for record in store][:6] == ["FLUX", "FLUX", "mine", "FLUX", "FLUX", "mine"]
        assert store[2].image == picture(0) and made.report.licences == {"cc0": 26}
        assert made.cost.missing == {"not drawn: no image of the prompt in the store": 10}
        assert server.answered["reason"] == 0


def test_prompts_are_written_longer_once(tmp_path):
    with Server() as server:
        writer = WriterRecipe(server.url, "writer")
        make_data(recipe(server, tmp_path, writer=writer, reasons=False))
        assert Store(tmp_path / "out")[3].prompt == "a long a cat number 3"
        assert server.answered["longer"] == 12


def test_undecided_images_and_own_rewards(tmp_path):
    (tmp_path / "mine.py").write_text(
        "def score(images):\n    return [0.6 if i % 2 else 0.9 for i, _ in enumerate(images)]"
    )
    with Server() as server:
        rewards = [RewardRecipe("python", path=f"{tmp_path}/mine.py:score")]
        made = make_data(recipe(server, tmp_path, rewards=rewards, undecided=False, part=12))
        assert [record.score for record in Store(tmp_path / "out")] == [0.9] * 6
        assert made.cost.missing == {"undecided": 6}


def test_processes_share_the_prompts(tmp_path):
    with Server() as server:
        outs = [str(tmp_path / f"out{process}") for process in (0, 1)]
        for process, out in enumerate(outs):
            make_data(replace(recipe(server, tmp_path, processes=2, process=process), out=out))
        assert sorted(record.prompt for record in Store(*outs)) == sorted(PROMPTS)
        assert server.answered["image"] == 12 and len(Store(outs[0]).shards) == 2


def test_the_claims_of_a_long_prompt_are_kept_with_their_marks(tmp_path):
    split = [{"id": i, "question": f"Is there a {name}?", "depends_on": []} for i, name in ((1, "cat"), (2, "dog"))]

    def answer(call: Call) -> None:
        if "images/generations" not in call.path and isinstance(call.body["messages"][0]["content"], str):
            call.say(json.dumps(split))
        else:
            plain(call)

    with Server() as server:
        plain = server.answer
        server.behaviours = [answer]
        rewards = [RewardRecipe("endpoint", url=server.url, model="judge", decompose_words=3)]
        make_data(recipe(server, tmp_path, rewards=rewards, reasons=False))
        record = Store(tmp_path / "out")[0]
        assert [claim.text for claim in record.claims] == ["Is there a cat?", "Is there a dog?"]
        assert {claim.mark for claim in record.claims} == {record.score >= 0.5}


def test_a_janus_model_draws_the_same_whatever_the_parts(tiny_folder, tmp_path):
    (tmp_path / "prompts.txt").write_text("a red circle\na blue square\n")
    stores = []
    for part in (1, 2):
        drawers = [DrawerRecipe("janus", model=str(tiny_folder), guidance=1.5, images=2, name="tiny")]
        out = tmp_path / f"out{part}"
        make_data(MakeRecipe(str(tmp_path / "prompts.txt"), str(out), drawers=drawers, part=part))
        stores.append([(record.id, record.image) for record in Store(out)])
    assert stores[0] == stores[1] and len({image for _, image in stores[0]}) == 4


def test_mistakes_are_one_line(tmp_path):
    (tmp_path / "p.txt").write_text("a cat")
    for drawers, said in (
        ([], "there is no drawer"),
        ([DrawerRecipe("server", model="x")], "needs a url"),
        ([DrawerRecipe("store", folder="a"), DrawerRecipe("store", folder="b/a")], "two drawers have one name"),
    ):
        with pytest.raises(UserError, match=said):
            make_data(MakeRecipe(str(tmp_path / "p.txt"), str(tmp_path / "out"), drawers=drawers))
    assert not (tmp_path / "out").exists()
