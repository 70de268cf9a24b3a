"""Models of the format ``repair`` behind the server: the chains of ``JanusR1.generate``, whoever shares the batch."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from janus_r1.api import JanusR1
from janus_r1.chain import Chain, Settings, Verdict
from janus_r1.engine.decoder import Decoder
from janus_r1.serve.house import load_all
from janus_r1.serve.rounds import Drawing, next_rounds, prepare
from janus_r1.serve.timeline import Story, timeline
from serve_house import PROMPT, data_uri, picture, pixels_of, sent_events, serving, severe

SHORT = {"rounds": 3, "max_list_tokens": 7, "max_reason_tokens": 6}


@pytest.fixture
def model(tiny_folder) -> JanusR1:
    """It mends drafts, by instructions that mean nothing."""
    model = severe(JanusR1.from_pretrained(str(tiny_folder)))
    model.model.core.config.introspection = "repair"
    return model


def same(chain: Chain, other: Chain) -> None:
    assert len(chain.rounds) == len(other.rounds) and chain.final == other.final
    for one, two in zip(chain.rounds, other.rounds, strict=True):
        assert one.ids == two.ids and one.repairs == two.repairs
        assert one.verdict.list_ids == two.verdict.list_ids and one.verdict.ids == two.verdict.ids
        assert np.array_equal(one.pixels, two.pixels)
        assert one.logprobs == pytest.approx(two.logprobs, abs=1e-4)


def alone(model: JanusR1, work: Drawing) -> Chain:
    """What the Python API makes of it."""
    asked = {name: getattr(work.settings, name) for name in (*SHORT, "seed", "temperature", "redraw", "repair_from")}
    if work.original is not None:
        return model.edit(work.original, work.prompt, first_row=work.row, **asked)[0]
    return model.generate(work.prompt, first_row=work.row, **asked)[0]


def by_rounds(model: JanusR1, works: list[Drawing], window: int | None = 1) -> None:
    """Draw them as the scheduler does: a round of the first key's chains at a time; later ones join on the way."""
    decoder, waiting = Decoder(model.model), list(works)
    for work in works:
        work.format = "repair"
        prepare(model.model, work)
    taken = waiting[:2]
    while taken or waiting:
        batch = [work for work in taken if work.key == taken[0].key]
        for work, item in zip(batch, next_rounds(decoder, batch, lambda *_: None, window), strict=True):
            work.rounds.append(item)
        waiting = [work for work in waiting if not work.finished()]
        taken = waiting[:3]


@pytest.mark.parametrize(
    ("knobs", "window"), [({}, 1), ({"redraw": "repair", "repair_from": "best"}, None), ({"redraw": "again"}, 4)]
)
def test_chains_are_those_of_the_python_api(model, knobs, window):
    works = [
        Drawing(f"{PROMPT} and {number} stars", Settings(seed=number, **SHORT, **knobs), row=number % 2)
        for number in range(2)
    ]
    works.append(Drawing("make it red", Settings(seed=9, **SHORT, **knobs), original=picture()))
    by_rounds(model, works, window)
    for work in works:
        same(work.chain(), alone(model, work))
    parents = {item.repairs for work in works for item in work.rounds}
    assert parents == {None} if knobs.get("redraw") == "again" else parents > {None}


def test_the_api_tells_the_list_the_marks_and_what_is_to_be_mended(model):
    body = {
        "prompt": PROMPT,
        "seed": 3,
        "rounds": 3,
        "trace": True,
        "return_all_rounds": True,
        "redraw": "repair",
        "max_list_tokens": 7,
        "max_reason_tokens": 6,
    }
    with serving(model) as running, ThreadPoolExecutor(4) as pool:
        others = [pool.submit(running.post, "/v1/images/generations", body | {"seed": seed}) for seed in (4, 5)]
        answer = running.post("/v1/images/generations", body).json()
        streamed = running.post("/v1/images/generations", body | {"stream": True}).text
        assert [other.result().status_code for other in others] == [200] * 2
        edit = SHORT | {"prompt": "make it red", "image": data_uri(picture()), "seed": 1, "trace": True}
        edited = running.post("/v1/images/edits", edit).json()
    chain = model.generate(PROMPT, seed=3, redraw="repair", **SHORT)[0]
    (told,) = answer["data"]
    assert [(pixels_of(b64) == item.pixels).all() for b64, item in zip(told["x_rounds"], chain.rounds, strict=True)]
    for step, item in zip(told["x_trace"], chain.rounds, strict=True):
        assert step["listing"] == item.verdict.listing and step["repairs"] == item.repairs
        assert step["instruction"] == item.verdict.instruction and step["text_tokens"] == item.verdict.tokens
        assert step["marks"] == [list(mark) for mark in item.verdict.marks]
    assert answer["usage"]["output_tokens_details"]["text_tokens"] == sum(r.verdict.tokens for r in chain.rounds)
    verdicts = [event for event in sent_events(streamed) if event["type"] == "image_generation.verdict"]
    assert [event["listing"] for event in verdicts] == [item.verdict.listing for item in chain.rounds]
    own = model.edit(picture(), "make it red", seed=1, **SHORT)[0]
    assert [step["repairs"] for step in edited["data"][0]["x_trace"]] == [item.repairs for item in own.rounds]
    assert (pixels_of(edited["data"][0]["b64_json"]) == own.pixels).all()


def test_the_judge_lists_first(model):
    content = [
        {"type": "image_url", "image_url": {"url": data_uri(picture())}},
        {"type": "text", "text": f"Description: {PROMPT}\nReply with yes or no only."},
    ]
    with serving(model) as running:
        asked = {"messages": [{"role": "user", "content": content}], "logprobs": True}
        told = running.post("/v1/chat/completions", asked).json()
    verdict = model.judge(picture(), PROMPT)[0]
    assert told["listing"] == verdict.listing and told["p_yes"] == pytest.approx(verdict.p_yes, abs=1e-5)
    details = told["usage"]["completion_tokens_details"]
    assert details["reasoning_tokens"] == len(verdict.list_ids) > 0
    assert told["usage"]["completion_tokens"] == verdict.tokens


def test_the_command_serves_what_mends(model, tmp_path):
    """Loaded as ``janus-r1 serve`` loads, which once refused the format."""
    model.save_pretrained(tmp_path / "mending")
    models = load_all(str(tmp_path / "mending"), "float32", "cpu", "auto", [])
    (served,) = models.values()
    assert served.model.format == "repair"
    with serving(served) as running:
        told = running.post("/v1/images/generations", SHORT | {"prompt": PROMPT, "seed": 3, "trace": True}).json()
    assert [step["listing"] for step in told["data"][0]["x_trace"]] == [
        item.verdict.listing for item in model.generate(PROMPT, seed=3, **SHORT)[0].rounds
    ]


def test_what_mends_nothing_refuses_what_is_said_of_mending(tiny_folder):
    with serving(JanusR1.from_pretrained(str(tiny_folder))) as running:
        for knob in ({"redraw": "repair"}, {"repair_from": "best"}, {"max_list_tokens": 5}):
            answer = running.post("/v1/images/generations", {"prompt": PROMPT, **knob})
            assert answer.status_code == 400 and answer.json()["error"]["param"] == next(iter(knob))


def test_marks_are_read_from_a_list():
    def marks(listing: str) -> list:
        return Verdict(False, "No", 0.1, listing=listing).marks

    assert marks("a small red ring Yes and a blue star No; two objects No") == [
        ("a small red ring", True),
        ("a blue star", False),
        ("two objects", False),
    ]
    assert marks("a ring and a star") == [("a ring and a star", None)]
    assert marks("a ring Yes, a Nordic star") == [("a ring", True), ("a Nordic star", None)]
    assert marks("") == []


def test_the_timeline_shows_marks_instruction_and_what_is_mended(model, monkeypatch):
    chain = model.generate(PROMPT, redraw="repair", repair_from="best", **SHORT)[0]
    said = Verdict(False, "No, make the <star> red.", 0.2, listing="a blue star No, one object Yes")
    for item in chain.rounds:
        object.__setattr__(item, "verdict", said)
    shown = timeline([Story.of(chain)], "")
    assert shown.count('<b class="fails">No</b> a blue star') == 3
    assert "to change: <b>make the &lt;star&gt; red</b>" in shown
    assert [f"mends {item.repairs + 1}" in shown for item in chain.rounds[1:]] == [True, True]


def test_a_context_that_was_dropped_is_fed_anew(tiny_folder):
    """Format paper: a chain keeps its rows between rounds, and goes on alike without them."""
    model = severe(JanusR1.from_pretrained(str(tiny_folder)))
    decoder = Decoder(model.model)
    settings = Settings(rounds=3, max_reason_tokens=9)
    works = [Drawing(PROMPT, replace(settings, seed=seed)) for seed in range(3)]
    works.append(Drawing("make it red", replace(settings, seed=4), original=picture()))
    for work in works:
        prepare(model.model, work)
    for index, batch in enumerate((works[:2], works, works[1:])):
        for work, item in zip(batch, next_rounds(decoder, batch, lambda *_: None), strict=True):
            work.rounds.append(item)
        assert all((work.kept is None) == work.finished() for work in batch)
        if index == 0:
            works[0].kept = None
    for work in works[1:3]:
        own = model.generate(work.prompt, seed=work.settings.seed, rounds=3, max_reason_tokens=9)[0]
        assert [item.ids for item in own.rounds][: len(work.rounds)] == [item.ids for item in work.rounds]
        said = [item.verdict.logprobs for item in own.rounds]
        for item, logprobs in zip(work.rounds, said, strict=False):
            torch.testing.assert_close(torch.tensor(item.verdict.logprobs), torch.tensor(logprobs), atol=1e-4, rtol=0)
    own = model.edit(picture(), "make it red", seed=4, rounds=3, temperature=1.0, max_reason_tokens=9)[0]
    assert [item.ids for item in own.rounds[:2]] == [item.ids for item in works[3].rounds]
    first = model.generate(PROMPT, seed=0, rounds=3, max_reason_tokens=9)[0]
    assert [item.ids for item in first.rounds[:2]] == [item.ids for item in works[0].rounds]
