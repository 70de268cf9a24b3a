"""What the page does with the model: runs that tell how far they are, and chains kept by an id."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from janus_r1.chain import Chain, Settings, load_chain
from janus_r1.errors import UserError
from janus_r1.serve import drawing
from janus_r1.serve.answers import Fault
from janus_r1.serve.drawing import Order, Picture
from janus_r1.serve.house import House
from janus_r1.serve.rounds import Drawing, Look
from janus_r1.serve.scheduler import Drawn, Failed, Finished, Judged
from janus_r1.serve.schemas import ImageRequest
from janus_r1.serve.timeline import Panel, Story

KEPT = 256  # runs that the page remembers; the oldest is forgotten first
CHAIN = "chain.json"


class Runs:
    """Chains by the id of their run. A visitor's session holds ids alone."""

    def __init__(self, gallery: Path | None = None) -> None:
        self.gallery = gallery
        self._chains: OrderedDict[str, list[Chain]] = OrderedDict()

    def keep(self, chains: Sequence[Chain]) -> str:
        run = secrets.token_urlsafe(12)
        self._chains[run] = list(chains)
        while len(self._chains) > KEPT:
            self._chains.popitem(last=False)
        return run

    def chain(self, run: str, sample: int) -> Chain:
        """Sample 1 is the first.

        Raises:
            UserError: for a run that is forgotten, or a sample that it does not have.
        """
        chains = self._chains.get(run, [])
        if not 1 <= sample <= len(chains):
            raise UserError("there is no such chain any more: draw again")
        return chains[sample - 1]

    # -------------------------------------------------------------------------------------- the gallery

    def save(self, run: str, sample: int) -> str:
        """Write a chain into the gallery; its name there.

        Raises:
            UserError: without a gallery, for a chain that is forgotten, and where the disk refuses.
        """
        chain = self.chain(run, sample)
        if self.gallery is None:
            raise UserError("this server keeps nothing: start it with --gallery FOLDER")
        words = "".join(c if c.isascii() and c.isalnum() else "-" for c in chain.prompt.lower())
        slug = "-".join(part for part in words[:60].split("-") if part) or "chain"
        name = f"{slug}-{chain.settings.seed}-{secrets.token_hex(2)}"
        chain.save(self.gallery / name)
        return name

    def saved(self) -> list[str]:
        """Names of the gallery's chains, the newest first."""
        if self.gallery is None or not self.gallery.is_dir():
            return []
        folders = [path for path in self.gallery.iterdir() if (path / CHAIN).is_file()]
        return [path.name for path in sorted(folders, key=lambda path: path.stat().st_mtime, reverse=True)]

    def load(self, name: str) -> Chain:
        """Raises UserError for what is not in the gallery: a name is compared, never joined to a path unseen."""
        if self.gallery is None or name not in self.saved():
            raise UserError("there is no such chain in the gallery")
        return load_chain(self.gallery / name)


# --------------------------------------------------------------------------------------------------- runs


def ordered(house: House, asked: ImageRequest, original: np.ndarray | None = None) -> Order:
    """Raises Fault for what cannot be drawn."""
    name = house.model(asked.model)
    model = house.scheduler.models[name].model
    return drawing.order(asked, name, model, house.defaults, original)


def continued(house: House, chain: Chain, kept: int, seed: int) -> Order:
    """``chain`` again from its round ``kept`` (from 1) on: what came before stays, what follows has other numbers."""
    (name, *_) = house.names
    model = house.scheduler.models[name].model
    rounds = list(chain.rounds[:kept])
    settings = replace(chain.settings, seed=seed, rounds=max(chain.settings.rounds, kept + 1))
    original = chain.source.pixels if chain.source else None
    work = Drawing(chain.prompt, settings, chain.row, original, rounds=rounds)
    asked = ImageRequest.model_validate({"prompt": chain.prompt})
    return Order(asked, name, model.image_size, model.image_tokens, [Picture(seed, 1)], [work], original)


def begun(order: Order) -> list[Story]:
    """A story for every chain, with the rounds that it starts from."""
    stories = []
    for work in order.work:
        panels = [Panel.of(item) for item in work.rounds]
        stories.append(Story(work.settings.seed, order.original, panels))
    return stories


async def told(house: House, client: str, order: Order, stories: list[Story]) -> AsyncIterator[list[Chain | None]]:
    """Draw an order and fill its stories; yields whenever they have grown, at last with all chains.

    Raises:
        Fault: where there is no room, or a chain failed.
    """
    chains: list[Chain | None] = [None] * len(order.work)
    with house.admitted(client, order.work, order.model, "page") as ticket:
        async for event in ticket:
            story = stories[event.index]
            if isinstance(event, Failed):
                raise drawing.failure(event.error)
            if isinstance(event, Drawn):
                story.panels.append(Panel(event.pixels))
            elif isinstance(event, Judged):
                story.panels[-1] = Panel.of(event.item, event.ms)
            elif isinstance(event.result, Chain):
                chains[event.index] = event.result
                story.final, story.stop = event.result.final, event.stop
            yield chains


async def verdict_on(house: House, client: str, look: Look) -> Finished:
    """Raises Fault where there is no room, or the model failed."""
    with house.admitted(client, [look], house.names[0], "page") as ticket:
        async for event in ticket:
            if isinstance(event, Failed):
                raise drawing.failure(event.error)
            if isinstance(event, Finished):
                return event
    raise Fault(500, "the model said nothing", code="internal_error")


# ------------------------------------------------------------------------------------------ to be copied


def as_command(chain: Chain, model: str) -> str:
    """What draws this chain again on the command line; an edit's picture is to be put in."""
    words = [f"--{name} {value}" for name, value in _told(chain).items()]
    verb = f'edit PICTURE.png "{_quoted(chain.prompt)}"' if chain.source else f'generate "{_quoted(chain.prompt)}"'
    return " ".join([f"janus-r1 {verb} --model {model} --samples {chain.row + 1}", *words])


def as_python(chain: Chain, model: str) -> str:
    """The same in Python."""
    told = "".join(f", {name}={value!r}" for name, value in _told(chain).items())
    lines = ["from janus_r1 import JanusR1", "", f"model = JanusR1.from_pretrained({model!r})"]
    if chain.source:
        lines.append("picture = ...  # uint8 [H, W, 3]")
        lines.append(f"chain = model.edit(picture, {chain.prompt!r}, samples={chain.row + 1}{told})[{chain.row}]")
    else:
        lines.append(f"chain = model.generate({chain.prompt!r}, samples={chain.row + 1}{told})[{chain.row}]")
    return "\n".join(lines)


def _told(chain: Chain) -> dict[str, Any]:
    """Rounds, seed, and the settings that are not the default."""
    usual = asdict(Settings())
    own = asdict(chain.settings)
    return {k: v for k, v in own.items() if k in ("rounds", "seed") or v != usual[k]}


def _quoted(text: str) -> str:
    """For a shell, inside double quotes."""
    return "".join(f"\\{c}" if c in '\\"$`!' else c for c in text)
