"""The model as a judge behind the chat endpoint: one word, Yes or No, with its probability, and why.

The model answers one question: does this picture show what a text says (or, of two pictures, does the second follow
the instruction from the first). So the text is looked for in what the client asks, in this order: after
``Description:`` or ``Instruction:``, as this project's own reward client writes; the longest passage in quotes; all
of the last user message, without a request for yes or no at its end.
"""

from __future__ import annotations

import math
import re
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import numpy as np

from janus_r1.chain import Settings, Verdict
from janus_r1.errors import UserError
from janus_r1.layout import clean
from janus_r1.serve.answers import DONE, bad, event
from janus_r1.serve.drawing import failure, listed
from janus_r1.serve.pictures import PictureLimits, from_uri, read_picture
from janus_r1.serve.rounds import Look
from janus_r1.serve.scheduler import Failed, Finished, Ticket
from janus_r1.serve.schemas import MAX_PROMPT, ChatRequest

LABELLED = re.compile(r"(?:^|[\s.])(Description|Caption|Prompt|Instruction):[ \t]*([^\n]+)", re.IGNORECASE)
QUOTED = re.compile(r"\"([^\"\n]{3,})\"|“([^”\n]{3,})”|'([^'\n]{3,})'")
ASKED_FOR = re.compile(
    r"\s*\b(?:please\s+)?(?:answer|reply|respond)\b[^.?!\n]*\byes\b[^.?!\n]*\bno\b[^\n]*$", re.IGNORECASE
)
IMPOSSIBLE = -9999.0  # how OpenAI writes the log of zero
DEFAULT_REASON = 80


def look_for(asked: ChatRequest, limits: PictureLimits) -> Look:
    """The verdict that a chat wants.

    Raises:
        Fault: 400 for a chat without a picture or text, or with more than two pictures; 413 for large ones.
    """
    pictures, text = _parts(asked.messages, limits)
    if not pictures:
        message = "this model judges pictures here: attach one as image_url; it draws at /v1/images/generations"
        raise bad(message, "messages")
    if len(pictures) > 2:
        raise bad("one picture to judge, or an original and what became of it: not more", "messages")
    prompt = description(text)
    try:
        clean(prompt, "text", "look for")
    except UserError as error:
        raise bad(str(error), "messages") from None
    limit = asked.max_completion_tokens or asked.max_tokens or DEFAULT_REASON
    settings = Settings(
        text_temperature=asked.temperature or 0.0,
        max_reason_tokens=min(limit, DEFAULT_REASON),
        seed=max(asked.seed or 0, 0),
    )
    original = pictures[0] if len(pictures) == 2 else None
    return Look(prompt, pictures[-1], settings, original=original)


def description(text: str) -> str:
    """What a picture is to show, out of a question about it."""
    labelled = LABELLED.search(text)
    if labelled:
        return ASKED_FOR.sub("", labelled[2]).strip().strip('"“”')
    quoted = [next(filter(None, groups)) for groups in QUOTED.findall(text)]
    if quoted:
        return max(quoted, key=len).strip()
    return ASKED_FOR.sub("", text).strip()


def _parts(messages: list[dict[str, Any]], limits: PictureLimits) -> tuple[list[np.ndarray], str]:
    """Pictures and text of the last message of the user."""
    last = next((m for m in reversed(messages) if m.get("role") == "user"), None)
    if last is None:
        raise bad("there is no message of the user", "messages")
    content = last.get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list):
        raise bad("content must be a text or a list of parts", "messages")
    pictures: list[np.ndarray] = []
    texts: list[str] = []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("text", "input_text"):
            texts.append(_text(part.get("text")))
        elif kind in ("image_url", "input_image"):
            if len(pictures) == 3:
                break  # too many already
            pictures.append(read_picture(from_uri(part, limits, "messages"), limits, "messages"))
        else:
            raise bad("a part must be of type text or image_url", "messages")
    return pictures, "\n".join(texts)


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_PROMPT:
        raise bad(f"a text part holds a text of at most {MAX_PROMPT} characters", "messages")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise bad("the text holds half of a surrogate pair: send whole characters", "messages") from None
    return value


# ------------------------------------------------------------------------------------------- the answer


async def judged(ticket: Ticket) -> Finished:
    """The verdict when it is there; the work is called off when nobody waits any more.

    Raises:
        Fault: where the model failed.
    """
    done = False
    try:
        async for item in ticket:
            if isinstance(item, Failed):
                raise failure(item.error)
            if isinstance(item, Finished):
                done = True
                return item
        raise AssertionError("a ticket ends with a result")
    finally:
        if not done:
            ticket.cancel()


def answer(asked: ChatRequest, model: str, finished: Finished, pieces: list[str], image_tokens: int) -> dict[str, Any]:
    """A chat completion. ``pieces`` are the verdict's tokens as texts."""
    verdict = _verdict(finished)
    choice: dict[str, Any] = {
        "index": 0,
        "message": {"role": "assistant", "content": verdict.text, "refusal": None},
        "finish_reason": _finish(verdict, pieces),
        "logprobs": logprobs(verdict, pieces, asked.top_logprobs) if asked.logprobs else None,
    }
    spent = {
        "prompt_tokens": finished.input_tokens + image_tokens,
        "completion_tokens": verdict.tokens,
        "completion_tokens_details": {"reasoning_tokens": len(verdict.list_ids)},
        "total_tokens": finished.input_tokens + image_tokens + verdict.tokens,
    }
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [choice],
        "usage": spent,
        "accepted": verdict.accepted,
        "p_yes": round(verdict.p_yes, 6),
        "reason": verdict.reason,
        **listed(verdict),
        **({"prompt_cut": True} if finished.cut else {}),
    }


def logprobs(verdict: Verdict, pieces: list[str], top: int) -> dict[str, Any]:
    """OpenAI's shape. The first word is scored over Yes and No alone, as the model is used."""
    content = []
    for index, (piece, logprob) in enumerate(zip(pieces, verdict.logprobs, strict=False)):
        if index:
            likeliest = [_token(piece, logprob)] if top else []
        else:
            both = {"Yes": verdict.p_yes, "No": 1 - verdict.p_yes}
            piece, logprob = _word(verdict), _log(both[_word(verdict)])
            likeliest = sorted((_token(word, _log(p)) for word, p in both.items()), key=lambda t: -t["logprob"])[:top]
        content.append({**_token(piece, logprob), "top_logprobs": likeliest})
    return {"content": content, "refusal": None}


async def chunks(asked: ChatRequest, whole: dict[str, Any]) -> AsyncIterator[bytes]:
    """The same as a stream. A verdict is short, so that it comes in one piece."""
    (choice,) = whole["choices"]
    common = {key: whole[key] for key in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    content = {"role": "assistant", "content": choice["message"]["content"]}
    names = "accepted", "p_yes", "reason", "listing", "marks"
    ours: dict[str, Any] = {name: whole[name] for name in names if name in whole}
    first = {"index": 0, "delta": content, "finish_reason": None, "logprobs": choice["logprobs"]}
    yield event({**common, "choices": [first], **ours})
    yield event({**common, "choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]})
    if (asked.stream_options or {}).get("include_usage"):
        yield event({**common, "choices": [], "usage": whole["usage"]})
    yield DONE


def _finish(verdict: Verdict, pieces: list[str]) -> str:
    """``stop`` where the end-of-sequence token was said, which has no text of its own."""
    return "stop" if len(verdict.ids) > len(pieces) else "length"


def _token(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode("utf-8", "replace"))}


def _word(verdict: Verdict) -> str:
    return "Yes" if verdict.accepted else "No"


def _log(p: float) -> float:
    return math.log(p) if p > 0 else IMPOSSIBLE


def _verdict(finished: Finished) -> Verdict:
    assert isinstance(finished.result, Verdict)
    return finished.result
