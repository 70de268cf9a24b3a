"""What a user imports: load, generate, edit, judge, save. PIL images, paths and arrays go in, PIL images come out."""

from __future__ import annotations

import os
import secrets
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from janus_r1 import ask as asking
from janus_r1 import introspect as algorithm
from janus_r1.chain import EDIT_TEMPERATURE, Chain, Settings, Task, Verdict
from janus_r1.errors import UnknownWords, UserError, first_line, foreign, nearest, require
from janus_r1.images import square, to_pixels
from janus_r1.layout import clean
from janus_r1.model.janus import Janus
from janus_r1.model.loading import load, save

ImageLike = Image.Image | str | os.PathLike[str] | np.ndarray
Seeds = int | None | Sequence[int]
Progress = Callable[[int], None]

# Names that people bring from diffusers, transformers and the official code, and what to say to them.
ELSEWHERE = {
    "num_images_per_prompt": "it is samples here",
    "num_images": "it is samples here",
    "n": "it is samples here",
    "parallel_size": "it is samples here",
    "guidance_scale": "it is guidance here",
    "cfg_weight": "it is guidance here",
    "cfg": "it is guidance here",
    "generator": "chains follow from seed, a whole number, or a list of one for every chain",
    "num_inference_steps": "there are no denoising steps; rounds is the largest number of drafts",
    "negative_prompt": "there is none: say what you want in the prompt",
    "height": "the size of images is the model's own (model.image_size)",
    "width": "the size of images is the model's own (model.image_size)",
    "strength": "there is none: an edit follows its instruction",
    "image": "pass images as the first argument of edit or judge",
    "max_new_tokens": "it is max_reason_tokens here",
    "output_type": "chains hold PIL images (image) and arrays (pixels) alike",
    "return_dict": "generate returns a list of chains",
    "batch_size": "it is max_batch here",
}


class JanusR1:
    """A model that draws, judges its own drawing, and redraws.

    >>> from janus_r1 import JanusR1
    >>> model = JanusR1.from_pretrained("tiny-r1-edit")
    >>> chain = model.generate("a red circle left of a blue square")[0]
    >>> chain.rounds[0].verdict.text, chain.image.size
    """

    def __init__(self, model: Janus) -> None:
        self.model = model

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str] = "tiny-r1-edit",
        dtype: str | torch.dtype = "float32",
        device: str | torch.device = "cpu",
        weights: str | Path | None = None,
        kv: str = "auto",
    ) -> JanusR1:
        """Load an embedded model, a folder or a Hub id.

        In the package are ``tiny-base``, ``tiny-sft``, ``tiny-r1``, which judges pictures of others best,
        ``tiny-r1-edit``, which draws and edits best, and ``tiny-repair``, which finds what is wrong and mends it.
        Folders may be in transformers' layout or in DeepSeek's; ``weights`` replaces theirs by a state
        dict with DeepSeek's names. ``dtype``: ``float32``, ``bfloat16``, ``auto`` (as stored) or ``int8``
        (large matrices in 8 bits, to generate with). ``kv``: ``auto``, or ``fp8`` for cached keys and values.

        Raises:
            UserError: if there is no such model, or the device cannot be used.
        """
        return cls(load(os.fspath(name), _dtype_name(dtype), str(_usable(device)), weights, kv))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write transformers' own layout: safetensors, config, processor."""
        save(self.model, folder)

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def image_size(self) -> int:
        """Pixels of a side; all images are squares."""
        return self.model.image_size

    def to(self, *args: Any, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> JanusR1:
        """Move to a device, convert to a dtype, or both; returns itself. The image tokenizer stays in float32.

        Raises:
            UserError: for a device that cannot be used, or anything that is neither.
        """
        for given in args:
            if isinstance(given, torch.dtype):
                dtype = given
            elif isinstance(given, str | torch.device):
                device = given
            else:
                raise UserError(f"to() takes a device or a torch.dtype, not {given!r:.60}")
        if device is not None:
            self.model.to(_usable(device))
        if dtype is not None:
            _dtype_name(dtype)
            self.model.to(dtype)
        return self

    # ------------------------------------------------------------------------------------- drawing

    def generate(
        self,
        prompts: str | Sequence[str],
        *,
        samples: int = 1,
        seed: Seeds = 0,
        first_row: int = 0,
        max_batch: int = 64,
        window: int | None = None,
        on_progress: Progress | None = None,
        **settings: Any,
    ) -> list[Chain]:
        """``samples`` chains of every prompt, those of one prompt side by side.

        Args:
            prompts: One or several.
            samples: Chains of every prompt.
            seed: The same seed, settings and weights give the same chains. None takes a fresh one, which the chains
                tell. A list has one for every chain, which then does not depend on its place.
            first_row: Shifts the random numbers, which belong to rows: a prompt in row 3 of a list is drawn alike
                alone with ``first_row=3``.
            max_batch: Chains drawn at once.
            window: Image tokens drawn in one forward pass, for the same image (at most 16); None: as many as pay.
            on_progress: Called with the number of chains that are done.
            settings: The other fields of :class:`janus_r1.chain.Settings`: rounds, guidance, ...

        Raises:
            UserError: for an empty prompt, or an argument that means nothing; nothing has been drawn then.
        """
        listed = _texts(prompts, "prompts")
        rows = [prompt for prompt in listed for _ in range(_positive(samples, "samples"))]
        for prompt in listed:
            _checked_text(prompt, "prompt", "draw")
            if unknown := self.model.unknown_words(prompt):
                warnings.warn(foreign(prompt, unknown), UnknownWords, stacklevel=2)
        return self._chains(
            list(map(Task, rows)), seed, first_row, max_batch, window, on_progress, _checked_settings(settings)
        )

    def edit(
        self,
        images: ImageLike | Sequence[ImageLike],
        instructions: str | Sequence[str],
        *,
        samples: int = 1,
        seed: Seeds = 0,
        first_row: int = 0,
        max_batch: int = 64,
        window: int | None = None,
        on_progress: Progress | None = None,
        **settings: Any,
    ) -> list[Chain]:
        """``samples`` chains of every image with its instruction, those of one pair side by side.

        One image may serve all instructions, or one instruction all images. Images of another size than the model's
        are fitted into it. The temperature is ``EDIT_TEMPERATURE`` unless ``settings`` say otherwise.

        Args:
            images: PIL images, paths or uint8 arrays [H, W, 3].
            instructions: What to change.
            samples: Chains of every pair.
            seed: As in :meth:`generate`.
            first_row: As in :meth:`generate`, so that an edit of an edit draws its own.
            max_batch: Chains drawn at once.
            window: Image tokens drawn in one forward pass, for the same image (at most 16); None: as many as pay.
            on_progress: Called with the number of chains that are done.
            settings: The other fields of :class:`janus_r1.chain.Settings`.

        Raises:
            UserError: for images and instructions that cannot be paired, or an argument that means nothing.
        """
        tasks = [task for task in _paired(images, instructions) for _ in range(_positive(samples, "samples"))]
        asked = {"temperature": EDIT_TEMPERATURE} | _checked_settings(settings)
        return self._chains(tasks, seed, first_row, max_batch, window, on_progress, asked)

    def _chains(
        self,
        tasks: list[Task],
        seed: Seeds,
        first_row: int,
        max_batch: int,
        window: int | None,
        on_progress: Progress | None,
        settings: dict[str, Any],
    ) -> list[Chain]:
        """With a seed for every chain each is drawn as the first row of its own batch."""
        require(isinstance(first_row, int) and first_row >= 0, f"first_row must be 0 or more, not {first_row!r}")
        batch = _positive(max_batch, "max_batch")
        window = None if window is None else _positive(window, "window")
        if isinstance(seed, int | None):
            one = Settings(**settings, seed=secrets.randbelow(2**31) if seed is None else int(seed))
            return algorithm.introspect(
                self.model,
                tasks,
                one,
                max_batch=batch,
                on_progress=on_progress,
                first_row=first_row,
                window=window,
            )
        seeds = list(seed)
        if len(seeds) != len(tasks) or not all(isinstance(number, int) for number in seeds):
            raise UserError(f"seed lists {len(seeds)} numbers for {len(tasks)} chains: give one whole number a chain")
        chains: list[Chain] = []
        for task, number in zip(tasks, seeds, strict=True):
            chains += algorithm.introspect(self.model, [task], Settings(**settings, seed=number), window=window)
            if on_progress:
                on_progress(len(chains))
        return chains

    # -------------------------------------------------------------------------------------- seeing

    def reconstruct(self, images: Sequence[ImageLike]) -> list[np.ndarray]:
        """What the image tokenizer keeps of images, which are fitted into the model's size: uint8 [H, W, 3]."""
        fitted = [square(to_pixels(image), self.image_size) for image in _listed(images)]
        ids = [source.ids for source in self.model.sources(fitted)]
        return list(self.model.decode_image(torch.tensor(ids, device=self.model.device)))

    def judge(
        self,
        images: ImageLike | Sequence[ImageLike],
        texts: str | Sequence[str],
        *,
        max_batch: int = 64,
        rows: Sequence[int] | None = None,
        **settings: Any,
    ) -> list[Verdict]:
        """Does each image match its text? One text may serve all images.

        Args:
            images: PIL images, paths or uint8 arrays [H, W, 3] of any size; they are fitted into the model's.
            texts: What the images should show.
            max_batch: Images judged at once.
            rows: A number for each image, by default its place; with the seed it fixes the random numbers.
            settings: text_temperature, max_reason_tokens, seed and others of :class:`janus_r1.chain.Settings`.

        Raises:
            UserError: if they are not as many, or an image is none.
        """
        pictures = [to_pixels(image) for image in _listed(images)]
        listed = [texts] * len(pictures) if isinstance(texts, str) else _texts(texts, "texts")
        if len(listed) != len(pictures):
            raise UserError(f"{len(pictures)} images but {len(listed)} texts: give one text, or one for each image")
        for text in listed:
            _checked_text(text, "text", "look for")
        asked = _checked_settings(settings)
        if asked.get("seed", 0) is None:
            asked["seed"] = secrets.randbelow(2**31)
        if rows is not None and len(rows) != len(pictures):
            raise UserError(f"{len(pictures)} images but {len(rows)} rows: give one for each image")
        batch = _positive(max_batch, "max_batch")
        tasks = list(map(Task, listed))
        return algorithm.judge(self.model, pictures, tasks, Settings(**asked), max_batch=batch, rows=rows)

    def ask(
        self,
        images: ImageLike | Sequence[ImageLike],
        questions: str | Sequence[str],
        *,
        max_tokens: int = 64,
        max_batch: int = 64,
    ) -> list[str]:
        """The likeliest answer to a question about each image; one image or question may serve all of the other.

        Raises:
            UserError: if they are not as many, or an image is none.
        """
        tasks = _paired(images, questions)
        pictures = [task.source for task in tasks if task.source is not None]
        limit, batch = _positive(max_tokens, "max_tokens"), _positive(max_batch, "max_batch")
        return asking.ask(self.model, pictures, [task.prompt for task in tasks], limit, batch)


# --------------------------------------------------------------------------------- what people pass


def _listed(images: ImageLike | Sequence[ImageLike]) -> list[ImageLike]:
    """One image or several: an array [H, W, 3] is one, [N, H, W, 3] several."""
    if isinstance(images, Image.Image | str | os.PathLike | bytes):
        return [images]
    if isinstance(images, np.ndarray):
        return [images] if images.ndim in (2, 3) else list(images)
    if hasattr(images, "detach"):
        raise UserError("images is a tensor: pass PIL images, paths or uint8 arrays [H, W, 3]")
    try:
        return list(images)
    except TypeError:
        raise UserError(f"images is a {type(images).__name__}: pass PIL images, paths or arrays") from None


def _paired(images: ImageLike | Sequence[ImageLike], instructions: str | Sequence[str]) -> list[Task]:
    """One image an instruction; a single one of either serves all of the other."""
    pictures = _listed(images)
    texts = _texts(instructions, "instructions")
    count = max(len(pictures), len(texts))
    if {len(pictures), len(texts)} - {1, count} or not pictures or not texts:
        raise UserError(f"{len(pictures)} images but {len(texts)} instructions: give one of either, or as many of both")
    for text in texts:
        _checked_text(text, "instruction", "change")
    pixels = [to_pixels(picture) for picture in pictures]
    sources, prompts = pixels * (count // len(pixels)), texts * (count // len(texts))
    return [Task(prompt, source) for prompt, source in zip(prompts, sources, strict=True)]


def _texts(texts: str | Sequence[str], name: str) -> list[str]:
    """One text or several."""
    if isinstance(texts, str):
        return [texts]
    if isinstance(texts, bytes | Mapping) or not isinstance(texts, Iterable):
        raise UserError(f"{name} must be a text or a list of texts, not {type(texts).__name__}: {texts!r:.60}")
    return list(texts)


def _checked_text(text: Any, kind: str, task: str) -> None:
    require(isinstance(text, str), f"a {kind} must be text, not {type(text).__name__}: {text!r:.60}")
    clean(text, kind, task)


def _checked_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Raises UserError for a name that is none of ours, saying what it is called here."""
    known = {one.name for one in fields(Settings)}
    for name in settings:
        if name in known:
            continue
        if name in ELSEWHERE:
            raise UserError(f"there is no {name}: {ELSEWHERE[name]}")
        hint = nearest(name, [*known, "samples", "max_batch"], f"settings are {', '.join(sorted(known))}")
        raise UserError(f"there is no setting {name!r}: {hint}")
    return dict(settings)


def _positive(value: Any, name: str) -> int:
    require(isinstance(value, int) and value >= 1, f"{name} must be a whole number of at least 1, not {value!r}")
    return int(value)


def _dtype_name(dtype: str | torch.dtype) -> str:
    name = str(dtype).removeprefix("torch.")
    if isinstance(dtype, torch.dtype) and name not in ("float32", "bfloat16"):
        raise UserError(f"dtype {name} is not supported: use float32 or bfloat16 (float16 overflows in this model)")
    return name


def _usable(device: str | torch.device) -> torch.device:
    """Raises UserError for a device that is none, or that this build or machine lacks."""
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise UserError(f"{device!r} is no device: {first_line(error)}") from None
    if found.type not in ("cpu", "cuda", "mps", "xpu"):
        raise UserError(f"the device {found.type} is not supported: use cpu, cuda, cuda:1, mps or xpu")
    backend = getattr(torch, found.type, None)
    if found.type != "cpu" and not (backend is not None and backend.is_available()):
        raise UserError(
            f"there is no {found.type} device here (torch {torch.__version__}): use cpu, or install its torch"
        )
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise UserError(f"there is no {found}: this machine has {torch.cuda.device_count()} of them")
    return found
