"""The unchanged openai client against the server: every call, good and bad."""

from __future__ import annotations

import asyncio
import math

import numpy as np
import openai
import pytest

from janus_r1.api import JanusR1
from janus_r1.chain import Task
from janus_r1.rewards.chat import Chat
from janus_r1.rewards.endpoint import EndpointReward
from serve_house import PROMPT, data_uri, picture, pixels_of, png, serving


@pytest.fixture(scope="module")
def model(tiny_folder) -> JanusR1:
    return JanusR1.from_pretrained(str(tiny_folder))


@pytest.fixture(scope="module")
def running(model):
    with serving(model) as house:
        yield house


def test_a_picture_is_the_one_that_its_seed_gives_alone(running, model):
    answer = running.client().images.generate(model="tiny", prompt=PROMPT, n=2, extra_body={"seed": 5, "trace": True})
    for number, item in enumerate(answer.data):
        alone = model.generate(PROMPT, seed=5 + number, rounds=2)[0]
        assert item.seed == 5 + number
        assert (pixels_of(item.b64_json) == alone.pixels).all()
        assert [r["verdict"] for r in item.x_trace] == [r.verdict.text for r in alone.rounds]
        assert [r["p_yes"] for r in item.x_trace] == pytest.approx([r.verdict.p_yes for r in alone.rounds], abs=1e-4)
    assert answer.size == "64x64" and answer.output_format == "png" and answer.created > 1_700_000_000


def test_a_prompt_that_is_cut_is_said_to_be(running):
    client, ask = running.client(), {"rounds": 1}
    cut = client.images.generate(prompt=f"{PROMPT} " * 60, extra_body=ask).data[0]
    whole = client.images.generate(prompt=PROMPT, extra_body=ask).data[0]
    assert cut.prompt_cut and not hasattr(whole, "prompt_cut")


def test_usage_counts_drafts_that_nobody_gets(running):
    ask = {"seed": 1, "rounds": 2, "early_stop": False}
    client = running.client()
    answer = client.images.generate(prompt=PROMPT, extra_body=ask)
    details = answer.usage.output_tokens_details
    assert (details.image_tokens, details.discarded_images, details.discarded_image_tokens) == (128, 1, 64)
    assert answer.usage.output_tokens == 128 + details.text_tokens
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    kept = client.images.generate(prompt=PROMPT, extra_body=ask | {"return_all_rounds": True})
    assert kept.usage.output_tokens_details.discarded_images == 0
    assert len(kept.data[0].x_rounds) == 2 and kept.data[0].x_rounds[1] == kept.data[0].b64_json


def test_quality_is_rounds_times_candidates(running, model):
    low = running.client().images.generate(prompt=PROMPT, quality="low", extra_body={"seed": 3, "trace": True})
    assert len(low.data[0].x_trace) == 1 and low.quality == "low"
    ask = {"seed": 3, "rounds": 1, "trace": True}
    high = running.client().images.generate(prompt=PROMPT, quality="high", extra_body=ask).data[0]
    alone = model.generate(PROMPT, samples=4, seed=3, rounds=1)
    best = max(range(4), key=lambda i: (alone[i].accepted, alone[i].rounds[0].verdict.p_yes))
    assert len(high.x_trace) == 4 and high.candidate == best
    assert np.abs(pixels_of(high.b64_json).astype(int) - alone[best].image).max() <= 1  # decoded in a batch there


def test_sizes_are_native_or_resized_and_said(running):
    client = running.client()
    large = client.images.generate(prompt=PROMPT, size="256x256", quality="low")
    assert pixels_of(large.data[0].b64_json).shape == (256, 256, 3)
    assert large.size == "256x256" and large.native_size == "64x64"
    for size in ("1536x1024", "0x0", "4096x4096", "big"):
        with pytest.raises(openai.BadRequestError) as refused:
            client.images.generate(prompt=PROMPT, size=size)
        assert refused.value.param == "size"


def test_formats(running):
    for kind in ("png", "jpeg", "webp"):
        answer = running.client().images.generate(prompt=PROMPT, output_format=kind, quality="low")
        assert pixels_of(answer.data[0].b64_json).shape == (64, 64, 3) and answer.output_format == kind
    as_url = running.client().images.generate(prompt=PROMPT, response_format="url", quality="low")
    assert as_url.data[0].url.startswith("data:image/png;base64,") and as_url.data[0].b64_json is None


def test_stream_shows_each_round_and_its_verdict(running, model):
    ask = {"seed": 2, "early_stop": False, "rounds": 2}
    events = list(running.client().images.generate(prompt=PROMPT, stream=True, extra_body=ask))
    assert [e.type.split(".")[1] for e in events] == ["partial_image", "verdict"] * 2 + ["completed"]
    alone = model.generate(PROMPT, seed=2, early_stop=False, rounds=2)[0]
    partial = [e for e in events if e.type == "image_generation.partial_image"]
    assert [e.partial_image_index for e in partial] == [0, 1]
    for item, round_ in zip(partial, alone.rounds, strict=True):
        assert (pixels_of(item.b64_json) == round_.pixels).all()
    assert [e.verdict for e in events if e.type.endswith("verdict")] == [r.verdict.text for r in alone.rounds]
    assert (pixels_of(events[-1].b64_json) == alone.pixels).all()
    assert events[-1].usage.output_tokens_details["image_tokens"] == 128  # the client knows no details here


@pytest.mark.parametrize(("most", "shown"), [(0, 0), (1, 1), (3, 2)])
def test_partial_images_bounds_what_is_shown(running, most, shown):
    ask = {"early_stop": False}
    events = running.client().images.generate(prompt=PROMPT, stream=True, partial_images=most, extra_body=ask)
    assert sum(e.type == "image_generation.partial_image" for e in events) == shown


def test_edits_by_file_and_by_data_uri(running, model):
    source = picture(seed=1)
    client = running.client()
    answer = client.images.edit(image=("../../x.png", png(source)), prompt="make it red", extra_body={"seed": 4})
    alone = model.edit(source, "make it red", seed=4, rounds=1)[0]
    assert (pixels_of(answer.data[0].b64_json) == alone.pixels).all()
    assert answer.usage.input_tokens_details.image_tokens == 64
    by_json = running.post(
        "/v1/images/edits", {"image": [{"image_url": data_uri(source)}], "prompt": "make it red", "seed": 4}
    )
    assert by_json.json()["data"][0]["b64_json"] == answer.data[0].b64_json
    with client.images.edit(image=[png(source)], prompt="make it red", stream=True, extra_body={"seed": 4}) as stream:
        events = list(stream)
    assert [e.type for e in events if "verdict" not in e.type] == ["image_edit.partial_image", "image_edit.completed"]
    assert events[-1].b64_json == answer.data[0].b64_json


def test_a_mask_keeps_what_is_opaque(running):
    source = picture(seed=2)
    mask = np.full((64, 64, 4), 255, np.uint8)
    mask[:, :32, 3] = 0
    answer = running.client().images.edit(image=png(source), mask=png(mask), prompt="make it red")
    drawn = pixels_of(answer.data[0].b64_json)
    assert (drawn[:, 32:] == source[:, 32:]).all() and (drawn[:, :32] != source[:, :32]).any()


def test_edits_that_are_refused(running):
    client, source = running.client(), png(picture())
    with pytest.raises(openai.BadRequestError, match="one picture at a time"):
        client.images.edit(image=[source, source, source], prompt="x")
    with pytest.raises(openai.BadRequestError, match="as large as the picture"):
        client.images.edit(image=source, mask=png(np.zeros((32, 32, 4), np.uint8)), prompt="x")
    with pytest.raises(openai.BadRequestError, match="no alpha"):
        client.images.edit(image=source, mask=source, prompt="x")
    with pytest.raises(openai.BadRequestError, match="not a whole picture"):
        client.images.edit(image=b"no picture at all", prompt="x")
    refused = running.post("/v1/images/edits", {"image": "http://127.0.0.1/x.png", "prompt": "x"})
    assert refused.status_code == 400 and refused.json()["error"]["code"] == "url_not_allowed"


def judge(client, text, *pictures, **options):
    parts = [{"type": "image_url", "image_url": {"url": data_uri(item)}} for item in pictures]
    message = {"role": "user", "content": [*parts, {"type": "text", "text": text}]}
    return client.chat.completions.create(model="tiny", messages=[message], **options)


def test_a_verdict_with_log_probs(running, model):
    shown = picture(seed=3)
    answer = judge(running.client(), PROMPT, shown, logprobs=True, top_logprobs=5)
    verdict = model.judge([shown], PROMPT)[0]
    assert answer.choices[0].message.content == verdict.text
    first = answer.choices[0].logprobs.content[0]
    assert first.token == ("Yes" if verdict.accepted else "No")
    probabilities = {item.token: math.exp(item.logprob) for item in first.top_logprobs}
    assert probabilities["Yes"] == pytest.approx(verdict.p_yes, abs=1e-4)
    assert sum(probabilities.values()) == pytest.approx(1)
    assert answer.usage.completion_tokens == len(verdict.ids)
    streamed = judge(running.client(), PROMPT, shown, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices)
    assert text == verdict.text


def test_our_own_reward_client_takes_it_for_a_judge(running, model):
    shown, source = picture(seed=3), picture(seed=4)
    reward = EndpointReward(Chat(f"{running.address}/v1", "tiny"))
    drawn, edited = reward.score([(Task(PROMPT), shown), (Task("make it red", source), shown)])
    assert drawn == pytest.approx(model.judge([shown], PROMPT)[0].p_yes, abs=1e-4)
    assert 0 < edited < 1 and edited != pytest.approx(drawn, abs=1e-6)


def test_chats_that_are_refused(running):
    client = running.client()
    with pytest.raises(openai.BadRequestError, match="attach one"):
        judge(client, "a red circle")
    with pytest.raises(openai.BadRequestError, match="not more"):
        judge(client, "x", *[picture()] * 3)
    with pytest.raises(openai.BadRequestError, match="text is empty"):
        judge(client, " ", picture())


def test_models_and_health(running):
    client = running.client()
    assert [item.id for item in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").native_size == "64x64"
    for call in (lambda: client.models.retrieve("gpt-9"), lambda: client.images.generate(prompt="x", model="gpt-9")):
        with pytest.raises(openai.NotFoundError) as missing:
            call()
        assert missing.value.code == "model_not_found"
    assert running.get("/health").json() == {"status": "ok", "waiting": 0}
    assert "/v1/images/generations" in running.get("/openapi.json").json()["paths"]


def test_requests_are_named_and_counted(running):
    raw = running.client().images.with_raw_response.generate(prompt=PROMPT, quality="low")
    assert len(raw.headers["x-request-id"]) == 32
    text = running.get("/metrics").text
    counted = [line for line in text.splitlines() if line.startswith("janus_images_total")]
    assert float(counted[0].split()[1]) >= 1
    assert 'janus_http_requests_total{path="/v1/images/generations",status="200"}' in text
    assert PROMPT not in text


def test_many_clients_at_once_get_what_is_theirs(running, model):
    async def all_at_once():
        async with openai.AsyncOpenAI(base_url=f"{running.address}/v1", api_key="x", max_retries=0) as client:
            asked = [client.images.generate(prompt=p, extra_body={"seed": s}) for s, p in enumerate(prompts)]
            return await asyncio.gather(*asked)

    prompts = [PROMPT, "three green stars", "a pink heart above a small yellow cross", "a ring"] * 3
    for seed, (prompt, answer) in enumerate(zip(prompts, asyncio.run(all_at_once()), strict=True)):
        alone = model.generate(prompt, seed=seed, rounds=2)[0]
        assert (pixels_of(answer.data[0].b64_json) == alone.pixels).all()
    assert running.house.scheduler.counts.rows > running.house.scheduler.counts.batches  # forwards were shared


def test_the_async_client_streams_edits_and_judges(running, model):
    source, ask = picture(seed=1), {"seed": 4, "rounds": 2, "early_stop": False}

    async def together():
        async with openai.AsyncOpenAI(base_url=f"{running.address}/v1", api_key="x", max_retries=0) as client:

            async def drawn():
                stream = await client.images.generate(prompt=PROMPT, stream=True, partial_images=3, extra_body=ask)
                return [event async for event in stream]

            editing = client.images.edit(image=png(source), prompt="make it red", extra_body={"seed": 4})
            return await asyncio.gather(drawn(), editing, judge(client, PROMPT, source))

    events, edited, said = asyncio.run(together())
    alone = model.generate(PROMPT, **ask)[0]
    kinds = [event.type.split(".")[1] for event in events]
    assert kinds == ["partial_image", "verdict"] * 2 + ["completed"]
    assert (pixels_of(events[-1].b64_json) == alone.pixels).all()
    own = model.edit(source, "make it red", seed=4, rounds=1)[0]
    assert (pixels_of(edited.data[0].b64_json) == own.pixels).all()
    assert said.choices[0].message.content == model.judge([source], PROMPT)[0].text
