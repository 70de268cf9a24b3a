"""``janus-r1 generate``, ``edit`` and ``judge``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from janus_r1.chain import EDIT_TEMPERATURE, Chain, Settings
from janus_r1.commands.model import (
    JUDGE,
    Batch,
    ModelOptions,
    load_model,
    memory_errors,
    plan_batch,
    warn_of_words,
)
from janus_r1.commands.output import (
    INDEX,
    ChainFolder,
    answers_only,
    check_texts,
    index,
    new_folder,
    print_json,
    progress,
    save,
    show,
    slug,
    warn,
)
from janus_r1.data.containers import IMAGE_SUFFIXES
from janus_r1.data.task_files import read_prompts
from janus_r1.errors import UserError, one_line, require
from janus_r1.fields import AtLeast0, Range, Window, width
from janus_r1.images import check_image, load_image, read_image

if TYPE_CHECKING:
    from janus_r1.api import JanusR1

Samples = Annotated[int, Range(ge=1, le=65536)]
DRAWING = Settings()
EDITING = Settings(rounds=1, temperature=EDIT_TEMPERATURE)  # the embedded editor has not learnt to redraw
ANY_MODEL = ModelOptions()
A_JUDGE = ModelOptions(model=JUDGE)
A_FOLDER = ChainFolder()
Update = Callable[[int, int], None]  # of a progress bar: chains that are done, and all

# What the paper and the released checkpoint sample with, where the defaults differ. The temperature of drafts
# is not stated; the official code's is 1, which is the default.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "rounds": 3,
        "guidance": 5.0,
        "top_k": 4096,
        "text_top_k": 50,
        "text_temperature": 1.0,
        "history": "last",
    },
}


def generate(
    prompts: tuple[str, ...] = (),
    *,
    file: str | None = None,
    samples: Samples | None = None,
    preset: Literal["paper"] | None = None,
    settings: Settings = DRAWING,
    using: ModelOptions = ANY_MODEL,
    max_batch: Batch = 64,
    window: Window = "auto",
    to: ChainFolder = A_FOLDER,
) -> None:
    """Draw, judge, redraw.

    The folder --out then holds sheet.png (everything at a glance), chains.json (the index) and one folder a chain
    with its drafts, its verdicts and a sheet of its own.

    Args:
        prompts: What to draw; several are drawn together
        file: Prompts: text, one a line (# comments), JSONL, a JSON list, or CSV and TSV with a header;
            - is standard input
        samples: Chains a prompt (default: 4 for one prompt, else 1)
        preset: paper: guidance 5, top-k 4096, text sampled at 1 with top-k 50, 3 rounds, history last; options
            given beside it win

    Examples:
        janus-r1 generate "a red circle left of a blue square"
        janus-r1 generate "two stars" "a pink heart above a cross" --rounds 5 --final best
        janus-r1 generate --file prompts.txt --samples 8 --out outputs/run1 --json > run1.json
        janus-r1 generate "a corgi" --model midbee/Janus-Pro-R1-7B --dtype bfloat16 --device cuda --preset paper
    """
    asked = [*prompts, *(read_prompts(file) if file else [])]
    require(bool(asked), "no prompt: say what to draw, or pass --file prompts.txt")
    check_texts(asked)
    samples = samples or (4 if len(asked) == 1 else 1)
    total = samples * len(asked)

    def draw(model: JanusR1, batch: int, update: Update) -> list[Chain]:
        return model.generate(
            asked,
            samples=samples,
            max_batch=batch,
            window=width(window),
            on_progress=lambda done: update(done, total),
            **asdict(settings),
        )

    out = to.out or Path(f"outputs/{slug(asked)}-{settings.seed}")
    with answers_only(to.json), new_folder(out, to.overwrite, INDEX):
        chains, seconds = _drawn(draw, asked, total, settings, using, max_batch)
        record = {"model": using.model, "samples": samples, **index(chains, out, settings), "seconds": seconds}
        save(chains, out, record)
    _answer(chains, record, out, to.json)


def edit(
    image: str,
    instructions: list[str],
    *,
    samples: Samples = 1,
    settings: Settings = EDITING,
    using: ModelOptions = ANY_MODEL,
    max_batch: Batch = 64,
    window: Window = "auto",
    to: ChainFolder = A_FOLDER,
) -> None:
    """Edit an image, judge the result, redraw.

    Several instructions are taken in turn, each applied to the last result. The picture is fitted into the model's
    square. The folder --out holds what generate writes, and every chain its source.

    Args:
        image: The image to edit, a file of any common format
        instructions: What to change, in turn
        samples: Chains an instruction

    Examples:
        janus-r1 edit scene.png "make the red circle blue"
        janus-r1 edit scene.png "remove the star" "add a green ring" --rounds 5
        janus-r1 edit photo.jpg "turn the sky pink" --model models/editor --samples 4 --json
    """
    check_texts(instructions, "instruction", "change")
    check_image(image)

    def draw(model: JanusR1, batch: int, update: Update) -> list[Chain]:
        return in_turn(model, pixels, instructions, settings, samples, batch, update, width(window))

    out = to.out or Path(f"outputs/{slug(instructions)}-{settings.seed}")
    with answers_only(to.json), new_folder(out, to.overwrite, INDEX):
        pixels = read_image(image, warn=warn)
        chains, seconds = _drawn(draw, instructions, samples, settings, using, max_batch, edit=True)
        head = {"model": using.model, "image": image, "instructions": instructions, "samples": samples}
        record = {**head, **index(chains, out, settings), "seconds": seconds}
        for place, item in enumerate(record["chains"]):
            item["sample"], item["turn"] = place // len(instructions) + 1, place % len(instructions) + 1
        save(chains, out, record)
    _answer(chains, record, out, to.json)


def _drawn(
    draw: Callable[[JanusR1, int, Update], list[Chain]],
    texts: Sequence[str],
    count: int,
    settings: Settings,
    using: ModelOptions,
    max_batch: int | str,
    edit: bool = False,
) -> tuple[list[Chain], float]:
    """What ``draw`` makes with the model and a batch that fits, at most ``count`` chains at once; and the seconds."""
    batch = plan_batch(using, max_batch, texts, count, settings, edit=edit)
    loaded = load_model(using)
    if not edit:
        warn_of_words(loaded, texts)
    began = time.monotonic()
    with progress("editing" if edit else "drawing") as update, memory_errors(batch, using.device):
        chains = draw(loaded, batch, update)
    return chains, round(time.monotonic() - began, 2)


def _answer(chains: list[Chain], record: dict[str, Any], out: Path, json: bool) -> None:
    if json:
        print_json(record)
    else:
        show(chains, out, record["seconds"])


def in_turn(
    model: JanusR1,
    image: np.ndarray,
    instructions: Sequence[str],
    settings: Settings,
    samples: int = 1,
    max_batch: int = 64,
    update: Update = lambda done, total: None,
    window: int | None = None,
) -> list[Chain]:
    """Every sample's chains, one an instruction, sample after sample; each edits the final image before it."""
    results = [image] * samples
    turns: list[list[Chain]] = []
    for number, instruction in enumerate(instructions):
        update(number, len(instructions))
        first = number * samples
        chains = model.edit(
            results, instruction, max_batch=max_batch, first_row=first, window=window, **asdict(settings)
        )
        results = [chain.pixels for chain in chains]
        turns.append(chains)
    return [turn[sample] for sample in range(samples) for turn in turns]


# ------------------------------------------------------------------------------------------- judge


def judge(
    images: list[str],
    *,
    text: list[str],
    text_temperature: AtLeast0 = 0.0,
    seed: int = 0,
    using: ModelOptions = A_JUDGE,
    max_batch: Batch = 64,
    json: bool = False,
) -> None:
    """Say whether images match a text, and why.

    Args:
        images: Image files of any common format, or folders of them
        text: What it should show; once for all images, or once an image
        text_temperature: Of the reason; 0 takes the likeliest
        seed: For --text-temperature above 0
        max_batch: Images judged at once at most: a number, or auto for as many as fit into memory

    Examples:
        janus-r1 judge drawing.png --text "three green stars"
        janus-r1 judge folder --text "a red ring"
        janus-r1 judge a.png b.png --text "a red ring" --text "a blue ring" --json
    """
    files = image_files(images)
    texts = texts_for(files, text)
    if len(files) == 1:
        check_image(files[0])  # of one image the complaint is the answer
    settings = Settings(text_temperature=text_temperature, seed=seed)
    with answers_only(json):
        batch = plan_batch(using, max_batch, texts, len(files), settings, drawing=False)
        loaded = load_model(using)
        items: list[dict[str, Any]] = []
        with progress("judging") as update, memory_errors(batch, using.device):
            for start in range(0, len(files), batch):
                part = slice(start, start + batch)
                items += _judged_files(loaded, files[part], texts[part], start, settings)
                update(len(items), len(files))
    if all("error" in item for item in items):
        raise UserError(items[0]["error"])
    if json:
        print_json({"model": using.model, "seed": seed, "verdicts": items})
    else:
        _show_verdicts(items)


def image_files(names: list[str]) -> list[str]:
    """Files as they are, and of folders all images in them.

    Raises:
        UserError: for a folder that holds none.
    """
    files: list[str] = []
    for name in names:
        if not Path(name).is_dir():
            files.append(name)
            continue
        inside = sorted(str(path) for path in Path(name).rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        if not inside:
            raise UserError(f"{name} holds no images ({', '.join(IMAGE_SUFFIXES)})")
        files += inside
    return files


def _judged_files(
    loaded: JanusR1, files: list[str], texts: list[str], first: int, settings: Settings
) -> list[dict[str, Any]]:
    """One entry a file; one that cannot be read says so and holds nothing up. ``first`` is the number of the first."""
    pixels: dict[int, np.ndarray] = {}
    items: list[dict[str, Any]] = []
    for place, (path, text) in enumerate(zip(files, texts, strict=True)):
        items.append({"image": path, "text": text})
        try:
            pixels[place] = load_image(path, loaded.image_size, warn=warn)
        except UserError as error:
            items[place]["error"] = str(error)
    if not pixels:
        return items
    rows, asked = [first + place for place in pixels], [texts[place] for place in pixels]
    verdicts = loaded.judge(list(pixels.values()), asked, max_batch=len(files), rows=rows, **asdict(settings))
    for place, verdict in zip(pixels, verdicts, strict=True):
        said = {"accepted": verdict.accepted, "p_yes": round(verdict.p_yes, 4), "verdict": verdict.text}
        items[place] |= {**said, "why": verdict.reason}
    return items


def texts_for(images: list[str], texts: list[str]) -> list[str]:
    """One text for all images, or one an image.

    Raises:
        UserError: if they cannot be paired, or a text is empty.
    """
    check_texts(texts)
    if len(texts) not in (1, len(images)):
        raise UserError(f"{len(images)} images and {len(texts)} texts: pass one --text for all, or one an image")
    return texts * len(images) if len(texts) == 1 else texts


def _show_verdicts(items: list[dict[str, Any]]) -> None:
    table = Table("image", "text", "verdict", "p_yes", "why", box=None, padding=(0, 2, 0, 0))
    for item in items:
        image, text = escape(one_line(item["image"])), escape(one_line(item["text"]))
        if "error" in item:
            table.add_row(image, text, "-", "-", escape(one_line(item["error"])))
            continue
        word = "[green]Yes[/green]" if item["accepted"] else "[red]No[/red]"
        table.add_row(image, text, word, f"{item['p_yes']:.2f}", escape(one_line(item["why"])))
    Console(highlight=False).print(table)
    if bad := sum("error" in item for item in items):
        warn(f"{bad} of {len(items)} images could not be read")
