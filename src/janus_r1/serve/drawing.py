"""From a request for pictures to work for the scheduler, and from what was drawn to the answer."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from janus_r1.chain import EDIT_TEMPERATURE, Chain, Round, Settings, Verdict, standing
from janus_r1.errors import UserError
from janus_r1.images import square
from janus_r1.layout import clean
from janus_r1.model.janus import Janus
from janus_r1.serve.answers import Fault, bad, event
from janus_r1.serve.limits import Defaults
from janus_r1.serve.pictures import Output, fitted_mask, masked
from janus_r1.serve.rounds import Drawing
from janus_r1.serve.scheduler import Drawn, Failed, Finished, Judged, Ticket
from janus_r1.serve.schemas import QUALITY, QUALITY_NAMES, ImageRequest

# What means something to one format alone.
REPAIRING = ("redraw", "repair_from", "repair_most", "repair_temperature", "max_list_tokens")
SETTINGS = frozenset(item.name for item in fields(Settings))


@dataclass
class Picture:
    """One picture of an answer: the best of its ``candidates`` chains."""

    seed: int
    candidates: int
    seen: int = 0
    """Drafts so far."""
    chains: dict[int, Finished] = field(default_factory=dict)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    """The trace, in the order in which rounds came."""
    drafts: list[np.ndarray] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return len(self.chains) == self.candidates

    @property
    def best(self) -> tuple[int, Finished]:
        """Accepted before rejected, then the one whose verdict speaks best of it, then the first."""

        def merit(item: tuple[int, Finished]) -> tuple[bool, float, int]:
            candidate, finished = item
            chain = _chain(finished)
            return chain.accepted, standing(chain.rounds[chain.final].verdict), -candidate

        return max(self.chains.items(), key=merit)


@dataclass
class Order:
    """A request for pictures, understood."""

    asked: ImageRequest
    model: str
    native: int
    """Pixels a side of what the model draws."""
    image_tokens: int
    pictures: list[Picture]
    work: list[Drawing]
    """Of all pictures in turn, ``candidates`` each."""
    original: np.ndarray | None = None
    """At the model's size."""
    editable: np.ndarray | None = None
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def kind(self) -> str:
        return "image_generation" if self.original is None else "image_edit"

    @property
    def output(self) -> Output:
        return Output(self.asked.side, self.asked.output_format, self.asked.output_compression)

    @property
    def about(self) -> dict[str, Any]:
        """What every answer and event says of its pictures."""
        side = self.asked.side or self.native
        quality = QUALITY_NAMES.get(self.asked.quality, self.asked.quality)
        return {
            "background": "opaque",
            "output_format": self.asked.output_format,
            "quality": quality,
            "size": f"{side}x{side}",
            "native_size": f"{self.native}x{self.native}",
            "model": self.model,
        }

    def shown(self, pixels: np.ndarray, seed: int | None = None) -> str:
        """Base64 of a draft, with the masked parts of an edit as they were."""
        if self.original is not None:
            pixels = masked(pixels, self.original, self.editable)
        about = {"prompt": self.asked.prompt, "seed": seed, "model": self.model} if self.asked.metadata else None
        return self.output.encode(pixels, about)


def settings_of(asked: ImageRequest, model: Janus, defaults: Defaults, edit: bool) -> tuple[Settings, int]:
    """The settings of the first picture's chains, and how many chains a picture is the best of.

    Raises:
        Fault: 400 for settings that mean nothing to this model.
    """
    if model.format != "repair":
        for name in REPAIRING:
            if getattr(asked, name) is not None:
                raise bad(f"this model mends no drafts, it draws anew: leave {name} out", name)
    rounds, candidates = QUALITY[asked.quality]
    values: dict[str, Any] = {"rounds": rounds or (defaults.edit_rounds if edit else defaults.rounds)}
    if edit:
        values["temperature"] = EDIT_TEMPERATURE
    values |= {name: value for name, value in asked.model_dump().items() if name in SETTINGS and value is not None}
    values["seed"] = secrets.randbelow(2**31) if asked.seed is None or asked.seed < 0 else asked.seed
    try:
        return Settings(**values), asked.candidates or candidates
    except UserError as error:
        raise bad(str(error)) from None


def order(
    asked: ImageRequest,
    name: str,
    model: Janus,
    defaults: Defaults,
    original: np.ndarray | None = None,
    editable: np.ndarray | None = None,
) -> Order:
    """Understand a request to ``model``, which is called ``name``.

    ``original`` and ``editable`` are uint8 [H, W, 3] and bool [H, W] of an edit.

    Raises:
        Fault: 400 for what cannot be drawn.
    """
    edit = original is not None
    try:
        clean(asked.prompt, "instruction" if edit else "prompt", "change" if edit else "draw")
    except UserError as error:
        raise bad(str(error), "prompt") from None
    settings, candidates = settings_of(asked, model, defaults, edit)
    seeds = [(settings.seed + number) % 2**32 for number in range(asked.n)]
    work = [
        Drawing(asked.prompt, replace(settings, seed=seed), row, original)
        for seed in seeds
        for row in range(candidates)
    ]
    native = model.image_size
    fitted = None if original is None else square(original, native)
    mask = None if editable is None else fitted_mask(editable, native)
    pictures = [Picture(seed, candidates) for seed in seeds]
    return Order(asked, name, native, model.image_tokens, pictures, work, fitted, mask)


# --------------------------------------------------------------------------------------- what was drawn


async def completed(order: Order, ticket: Ticket) -> AsyncIterator[tuple[Drawn | Judged | Finished, Picture]]:
    """The ticket's events with the picture each belongs to, which then knows of it. Ends the work if it is left early.

    Raises:
        Fault: where a chain failed.
    """
    done = False
    try:
        async for item in ticket:
            if isinstance(item, Failed):
                raise failure(item.error)
            number, candidate = divmod(item.index, order.pictures[0].candidates)
            picture = order.pictures[number]
            if isinstance(item, Drawn):
                picture.seen += 1
            elif isinstance(item, Judged):
                picture.rounds.append(traced(item, candidate, picture.seed))
                picture.drafts.append(item.item.pixels)
            else:
                picture.chains[candidate] = item
            yield item, picture
        done = True
    finally:
        if not done:
            ticket.cancel()


def failure(error: Exception) -> Fault:
    """What a client hears of work that failed in the model's thread."""
    if isinstance(error, UserError):
        return bad(str(error), "prompt")
    if "memory" in type(error).__name__.lower():
        return Fault(503, "out of memory: ask for fewer images or rounds", code="out_of_memory", retry_s=5)
    return Fault(500, "the model failed; the server's log has more", code="internal_error")


def traced(item: Judged, candidate: int, seed: int) -> dict[str, Any]:
    """A round as ``x_trace`` and the verdict event have it."""
    verdict = item.item.verdict
    return {
        "candidate": candidate,
        "round": item.round,
        "accepted": verdict.accepted,
        "p_yes": round(verdict.p_yes, 6),
        "verdict": verdict.text,
        "reason": verdict.reason,
        **listed(verdict),
        **({"instruction": verdict.instruction, "repairs": item.item.repairs} if verdict.listing else {}),
        "seed": seed,
        "row": candidate,
        "image_tokens": len(item.item.ids),
        "text_tokens": verdict.tokens,
        "ms": round(item.ms, 1),
    }


def listed(verdict: Verdict) -> dict[str, Any]:
    """What was seen before the word was said, where the model's format has it."""
    return {"listing": verdict.listing, "marks": verdict.marks} if verdict.listing else {}


def entry(order: Order, picture: Picture) -> dict[str, Any]:
    """``data[i]`` of an answer."""
    candidate, finished = picture.best
    chain = _chain(finished)
    data = order.shown(chain.pixels, picture.seed)
    if order.asked.response_format == "url":
        pictured: dict[str, Any] = {"url": f"data:image/{order.asked.output_format};base64,{data}"}
    else:
        pictured = {"b64_json": data}
    cut = {"prompt_cut": True} if finished.cut else {}
    return {**pictured, **said_of(order, picture, candidate, chain, finished.stop), **cut}


def said_of(order: Order, picture: Picture, candidate: int, chain: Chain, stop: str) -> dict[str, Any]:
    """Our own fields beside a picture; the long ones where they were asked for."""
    said: dict[str, Any] = {
        "seed": picture.seed,
        "rounds": len(chain.rounds),
        "round": chain.final,
        "accepted": chain.accepted,
        "p_yes": round(chain.rounds[chain.final].verdict.p_yes, 6),
        "stop": stop,
    }
    if picture.candidates > 1:
        said["candidate"] = candidate
    if order.asked.trace:
        said["x_trace"] = picture.rounds
    if order.asked.return_all_rounds:
        said["x_rounds"] = [order.shown(pixels, picture.seed) for pixels in picture.drafts]
    return said


def usage(order: Order, pictures: Sequence[Picture]) -> dict[str, Any]:
    """All that was read and drawn for these pictures; drafts that nobody gets are counted, and said to be such."""
    chains = [(_chain(finished), finished) for picture in pictures for finished in picture.chains.values()]
    rounds: list[Round] = [item for chain, _ in chains for item in chain.rounds]
    drawn = sum(len(item.ids) for item in rounds)
    said = sum(item.verdict.tokens for item in rounds)
    thrown = 0 if order.asked.return_all_rounds else len(rounds) - len(pictures)
    text = sum(finished.input_tokens for _, finished in chains)
    sources = order.image_tokens * len(chains) if order.original is not None else 0
    return {
        "input_tokens": text + sources,
        "input_tokens_details": {"text_tokens": text, "image_tokens": sources},
        "output_tokens": drawn + said,
        "output_tokens_details": {
            "image_tokens": drawn,
            "text_tokens": said,
            "discarded_images": thrown,
            "discarded_image_tokens": thrown * order.image_tokens,
        },
        "total_tokens": text + sources + drawn + said,
    }


async def collected(order: Order, ticket: Ticket) -> dict[str, Any]:
    """The answer of a request that does not stream."""
    async for _ in completed(order, ticket):
        pass
    data = [entry(order, picture) for picture in order.pictures]
    return {"created": order.created, "data": data, **order.about, "usage": usage(order, order.pictures)}


async def events(order: Order, ticket: Ticket) -> AsyncIterator[bytes]:
    """The answer of one that does: each round's draft, then its verdict; each picture when it is complete.

    ``image_index`` says which picture an event belongs to. Verdicts have a type of their own, which clients that
    know OpenAI's alone pass over.
    """
    common = {"created_at": order.created, **order.about}
    most = order.asked.partial_images
    steps = completed(order, ticket)
    try:
        async for item, picture in steps:
            where = {"image_index": order.pictures.index(picture), "seed": picture.seed}
            if isinstance(item, Drawn) and (most is None or picture.seen <= most):
                index = picture.seen - 1
                b64 = order.shown(item.pixels, picture.seed)
                kind = f"{order.kind}.partial_image"
                yield event({"type": kind, "partial_image_index": index, "b64_json": b64, **where, **common})
            elif isinstance(item, Judged):
                yield event({"type": f"{order.kind}.verdict", **where, **picture.rounds[-1]})
            elif isinstance(item, Finished) and picture.complete:
                own = {**entry(order, picture), **where, **common, "usage": usage(order, [picture])}
                if "url" in own:
                    own["b64_json"] = own.pop("url").partition(",")[2]
                yield event({"type": f"{order.kind}.completed", **own})
    except Fault as fault:
        yield event({"type": "error", **fault.body})
    finally:
        await steps.aclose()  # type: ignore[attr-defined]


def _chain(finished: Finished) -> Chain:
    assert isinstance(finished.result, Chain)
    return finished.result
