"""The page: Create, Edit, Judge and a gallery. The chain is shown while it is thought.

What a visitor sees is made of HTML with the pictures inside, so that no file is written for anybody, and a session
holds the id of its last run alone.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import AsyncIterator, Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from pydantic import ValidationError

from janus_r1.chain import Chain, Settings
from janus_r1.errors import UserError
from janus_r1.layout import clean
from janus_r1.serve import runs
from janus_r1.serve.answers import Fault, from_validation
from janus_r1.serve.house import House
from janus_r1.serve.limits import PAGE
from janus_r1.serve.rounds import Look
from janus_r1.serve.runs import Runs
from janus_r1.serve.schemas import MAX_PROMPT, ImageRequest
from janus_r1.serve.timeline import CSS, Panel, Story, timeline

TINY = """The model that is loaded knows **a small world**: circles, squares, triangles, stars, hearts, crosses,
diamonds and rings in ten colours, small or large, one to four of them, left of, right of, above or below each other.
It was trained on nothing else, so ask for these."""
TINY_PROMPTS = [
    "a red circle left of a blue square",
    "three green stars",
    "a small yellow ring above a large purple heart",
    "two orange diamonds and a pink cross",
]
TINY_EDITS = ["make the red circle blue", "remove the star", "add a green ring"]
PROMPTS = [
    "a corgi wearing a red scarf in the snow",
    "three apples on a wooden table",
    "a blue cup left of a yellow book",
]
EDITS = ["make the sky pink", "remove the person", "turn it into a watercolour"]
Shown = tuple[str, str, Any, str, str]  # timeline, run, choices of "draw again", command, Python


class Page:
    """What the tabs' buttons do. All of it is asynchronous: the model's thread is the only one that works."""

    def __init__(self, house: House, gallery: Path | None) -> None:
        self.house, self.runs = house, Runs(gallery)

    async def create(
        self,
        prompt: str,
        samples: int,
        rounds: int,
        seed: int,
        guidance: float,
        temperature: float,
        request: gr.Request,
    ) -> AsyncIterator[Shown]:
        asked = self._asked(prompt, samples, rounds, seed, guidance, temperature)
        async for shown in self._run(runs.ordered(self.house, asked), request):
            yield shown

    async def edit(
        self,
        picture: np.ndarray | None,
        instruction: str,
        samples: int,
        rounds: int,
        seed: int,
        temperature: float,
        request: gr.Request,
    ) -> AsyncIterator[Shown]:
        if picture is None:
            raise gr.Error("Choose a picture to edit.", print_exception=False)
        asked = self._asked(instruction, samples, rounds, seed, None, temperature)
        async for shown in self._run(runs.ordered(self.house, asked, picture), request):
            yield shown

    async def again(self, run: str, choice: str | None, request: gr.Request) -> AsyncIterator[Shown]:
        """``choice`` is a sample and a round, as :meth:`_choices` spells them."""
        if not run or not choice:
            raise gr.Error("Choose a draft to go on from.", print_exception=False)
        sample, kept = (int(part.rsplit(" ", 1)[1]) for part in choice.split(", "))
        chain = self._or_error(lambda: self.runs.chain(run, sample))
        order = runs.continued(self.house, chain, kept, secrets.randbelow(2**31))
        async for shown in self._run(order, request):
            yield shown

    async def judge(self, picture: np.ndarray | None, text: str, request: gr.Request) -> str:
        if picture is None:
            raise gr.Error("Choose a picture to judge.", print_exception=False)
        self._or_error(lambda: clean(text, "text", "look for"))
        look = Look(text[:MAX_PROMPT], picture, Settings())
        try:
            done = await runs.verdict_on(self.house, _client(request), look)
        except Fault as fault:
            raise gr.Error(fault.message, print_exception=False) from None
        verdict = done.result
        assert not isinstance(verdict, Chain)
        story = Story(0, None, [Panel(look.shown, verdict, verdict.tokens)], 0, "judged")
        return timeline([story], f"{'Yes' if verdict.accepted else 'No'}, p_yes {verdict.p_yes:.2f}")

    def keep(self, run: str, choice: str | None) -> str:
        sample = int(choice.split(",")[0].rsplit(" ", 1)[1]) if choice else 1
        name = self._or_error(lambda: self.runs.save(run, sample))
        return f"Kept in the gallery as `{name}`."

    def show_saved(self, name: str | None) -> tuple[str, str, str]:
        if not name:
            return "", "", ""
        chain = self._or_error(lambda: self.runs.load(name))
        return timeline([Story.of(chain)], chain.prompt), *self._copies(chain)

    # ------------------------------------------------------------------------------------------ within

    def _asked(
        self, prompt: str, samples: int, rounds: int, seed: int, guidance: float | None, temperature: float
    ) -> ImageRequest:
        knobs = {"n": samples, "rounds": rounds, "seed": seed, "guidance": guidance, "temperature": temperature}
        try:
            return ImageRequest.model_validate({"prompt": prompt, **knobs})
        except ValidationError as error:
            raise gr.Error(from_validation(error.errors()).message, print_exception=False) from None

    async def _run(self, order: runs.Order, request: gr.Request) -> AsyncIterator[Shown]:
        stories = runs.begun(order)
        chains: list[Chain | None] = []
        yield timeline(stories, "drawing"), "", gr.update(choices=[], value=None), "", ""
        try:
            async for known in runs.told(self.house, _client(request), order, stories):
                chains = known
                drafts = sum(len(story.panels) for story in stories)
                yield timeline(stories, f"{drafts} drafts so far"), "", gr.skip(), "", ""
        except Fault as fault:
            raise gr.Error(fault.message, print_exception=False) from None
        done = [chain for chain in chains if chain]
        run = self.runs.keep(done)
        accepted = sum(chain.accepted for chain in done)
        choices = _choices(done)
        status = f"done: {accepted} of {len(done)} accepted"
        update = gr.update(choices=choices, value=choices[0])
        yield timeline(stories, status), run, update, *self._copies(done[0])

    def _copies(self, chain: Chain) -> tuple[str, str]:
        name = self.house.names[0]
        return runs.as_command(chain, name), runs.as_python(chain, name)

    def _or_error(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from None


def _client(request: gr.Request | None) -> str:
    return request.client.host if request and request.client else "page"


def _choices(chains: list[Chain]) -> list[str]:
    return [
        f"sample {number}, draft {draft}"
        for number, chain in enumerate(chains, 1)
        for draft in range(1, len(chain.rounds) + 1)
    ]


# ------------------------------------------------------------------------------------------------- layout


def build(page: Page) -> gr.Blocks:
    """All tabs, wired."""
    tiny = all(model.model.image_size < 128 for model in page.house.scheduler.models.values())
    with gr.Blocks(title="Janus-R1", analytics_enabled=False) as blocks:
        gr.Markdown("# Janus-R1\nIt draws, looks at its drawing, and draws again until it is satisfied.")
        if tiny:
            gr.Markdown(TINY)
        with gr.Tab("Create", id="create"):
            _create(page, TINY_PROMPTS if tiny else PROMPTS)
        with gr.Tab("Edit", id="edit"):
            _edit(page, TINY_EDITS if tiny else EDITS)
        with gr.Tab("Judge", id="judge"):
            _judge(page, TINY_PROMPTS if tiny else PROMPTS)
        with gr.Tab("Gallery", id="gallery"):
            _gallery(page)
        gr.api(_tool(page), api_name="draw_and_judge")
    return blocks


def _create(page: Page, examples: list[str]) -> None:
    prompt = gr.Textbox(label="What to draw", elem_id="prompt", max_length=MAX_PROMPT, autofocus=True)
    gr.Examples([[text] for text in examples], [prompt], label="Examples", api_visibility="private")
    with gr.Accordion("Settings", open=False):
        samples = gr.Slider(1, 4, 1, step=1, label="Samples")
        rounds = gr.Slider(1, 8, page.house.defaults.rounds, step=1, label="Drafts at most")
        seed = gr.Number(-1, label="Seed (-1: by lot)", precision=0, minimum=-1, maximum=2**32 - 1)
        guidance = gr.Slider(1, 10, Settings().guidance, step=0.1, label="Guidance")
        temperature = gr.Slider(0, 2, 1.0, step=0.05, label="Temperature")
    _running(page, page.create, [prompt, samples, rounds, seed, guidance, temperature], prompt, "Draw", "create")


def _edit(page: Page, examples: list[str]) -> None:
    picture = gr.Image(label="Picture", type="numpy", image_mode="RGB", sources=["upload", "clipboard"], height=220)
    text = gr.Textbox(label="What to change", elem_id="instruction", max_length=MAX_PROMPT)
    gr.Examples([[item] for item in examples], [text], label="Examples", api_visibility="private")
    with gr.Accordion("Settings", open=False):
        samples = gr.Slider(1, 4, 1, step=1, label="Samples")
        rounds = gr.Slider(1, 8, page.house.defaults.edit_rounds, step=1, label="Drafts at most")
        seed = gr.Number(-1, label="Seed (-1: by lot)", precision=0, minimum=-1, maximum=2**32 - 1)
        temperature = gr.Slider(0, 2, 0.5, step=0.05, label="Temperature")
    _running(page, page.edit, [picture, text, samples, rounds, seed, temperature], text, "Edit", "edit")


def _running(page: Page, function: Callable, inputs: list[Any], enter: gr.Textbox, verb: str, name: str) -> None:
    """Buttons, the timeline, and what can be done with a finished chain."""
    with gr.Row():
        go = gr.Button(verb, variant="primary", elem_id=f"{name}-go")
        stop = gr.Button("Stop", elem_id=f"{name}-stop")
    shown = gr.HTML(elem_id=f"{name}-timeline", apply_default_css=False)
    run = gr.State("", time_to_live=86_400)
    with gr.Row():
        choice = gr.Dropdown([], label="Go on from", elem_id=f"{name}-choice", interactive=True)
        again = gr.Button("Draw again from this draft", elem_id=f"{name}-again")
        keep = gr.Button("Keep", elem_id=f"{name}-keep")
    kept = gr.Markdown()
    with gr.Accordion("As a command, and in Python", open=False):
        command = gr.Code(label="Command", language="shell", interactive=False)
        python = gr.Code(label="Python", language="python", interactive=False)
    outputs = [shown, run, choice, command, python]
    options: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": None, "show_progress": "hidden"}
    started = gr.on([go.click, enter.submit], function, inputs, outputs, **options)
    continued = again.click(page.again, [run, choice], outputs, **options)
    stop.click(None, cancels=[started, continued], api_visibility="private")
    keep.click(page.keep, [run, choice], kept, api_visibility="private")


def _judge(page: Page, examples: list[str]) -> None:
    picture = gr.Image(label="Picture", type="numpy", image_mode="RGB", sources=["upload", "clipboard"], height=220)
    text = gr.Textbox(label="What it should show", elem_id="claim", max_length=MAX_PROMPT)
    gr.Examples([[item] for item in examples], [text], label="Examples", api_visibility="private")
    go = gr.Button("Judge", variant="primary", elem_id="judge-go")
    shown = gr.HTML(elem_id="judge-verdict", apply_default_css=False)
    options: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": None}
    gr.on([go.click, text.submit], page.judge, [picture, text], shown, **options)


def _gallery(page: Page) -> None:
    if page.runs.gallery is None:
        gr.Markdown("This server keeps nothing. Start it with `--gallery FOLDER` to keep chains.")
        return
    with gr.Row():
        name = gr.Dropdown(page.runs.saved(), value=None, label="Kept chains", elem_id="saved")
        refresh = gr.Button("Look again")
    shown = gr.HTML(elem_id="saved-timeline", apply_default_css=False)
    command, python = gr.Code(label="Command", language="shell"), gr.Code(label="Python", language="python")
    options: dict[str, Any] = {"api_visibility": "private"}
    refresh.click(lambda: gr.update(choices=page.runs.saved()), None, name, **options)
    name.change(page.show_saved, name, [shown, command, python], **options)


def _tool(page: Page) -> Callable:
    """The function behind Gradio's API and its MCP tool."""

    async def draw_and_judge(prompt: str, rounds: int = 3, seed: int = 0) -> dict[str, Any]:
        """Draw a picture, judge it, and draw again until the model is satisfied.

        Args:
            prompt: What to draw.
            rounds: Most drafts, 1 to 8.
            seed: The same seed gives the same picture.

        Returns:
            The final picture as a data: URI, the seed, and the verdict on every draft.
        """
        try:
            order = runs.ordered(page.house, page._asked(prompt, 1, rounds, seed, None, 1.0))
            with page.house.admitted("mcp", order.work, order.model, "mcp") as ticket:
                from janus_r1.serve.drawing import collected

                order.asked.trace, order.asked.response_format = True, "url"
                (answer,) = (await collected(order, ticket))["data"]
        except Fault as fault:
            raise gr.Error(fault.message, print_exception=False) from None
        return answer

    return draw_and_judge


def mount(app: FastAPI, house: House, gallery: Path | None) -> FastAPI:
    """The page under ``/page``, to which ``/`` leads; with a key visitors sign in with it as any user's password."""

    @app.get("/", include_in_schema=False)
    async def to_page() -> RedirectResponse:
        return RedirectResponse(f"{PAGE}/")

    def signs_in(user: str, password: str) -> bool:
        return hmac.compare_digest(password.encode(), (house.key or "").encode())

    blocks = build(Page(house, gallery))
    blocks.queue(max_size=256, default_concurrency_limit=64)
    return gr.mount_gradio_app(
        app,
        blocks,
        PAGE,
        auth=signs_in if house.key else None,
        auth_message="The password is the server's key; any user name will do." if house.key else None,
        max_file_size=house.limits.pictures.max_bytes,
        footer_links=["api"],
        run_history=False,
        show_error=True,
        mcp_server=find_spec("mcp") is not None,
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css=CSS,
    )
