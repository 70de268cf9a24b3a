"""What the columns of people's data mean: every schema in use, turned into one kind of finding.

A schema is recognised by the names that a row has, row by row. ``columns`` maps names that nobody knows:
``{"prompt": "my_caption", "image": "photo"}``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from janus_r1.data.containers import Raw
from janus_r1.data.store import Claim

FIELDS = ("prompt", "image", "score", "reason", "claims", "source_image", "source", "licence", "id", "wrong", "right")

# Names of what a row may say beside prompt and images, in any schema.
ASIDE = {
    "score": ("score", "prob", "p_yes"),
    "reason": ("reason", "explanation", "reflection"),
    "label": ("label", "accepted", "is_correct"),
    "claims": ("claims",),
    "source": ("source", "source_model", "generator"),
    "licence": ("licence", "license"),
    "id": ("id", "sample_id", "omni_edit_id", "image_id", "__key__", "idx", "promptid", "global_id"),
    "repair_of": ("repair_of",),
}


@dataclass(frozen=True)
class Found:
    """One image of a prompt, as its row gives it: nothing is read or checked yet."""

    prompt: Any
    image: Any
    """Bytes, a ``{bytes, path}`` struct or a path."""
    source_image: Any = None
    score: Any = None
    reason: Any = None
    claims: Any = None
    source: Any = None
    licence: Any = None
    id: Any = None
    repair_of: Any = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Schema:
    """Columns by their names in the wild, in order of preference; all of them must be there."""

    name: str
    columns: dict[str, tuple[str, ...]]

    def match(self, values: Mapping[str, Any]) -> dict[str, str] | None:
        """Our names to the row's, or nothing."""
        found = {ours: next((n for n in names if n in values), None) for ours, names in self.columns.items()}
        return {ours: name for ours, name in found.items() if name} if all(found.values()) else None


_INSTRUCTION = ("instruction", "edit_prompt", "edit_instruction", "edit", "input_prompt", "prompt", "text", "txt")
_PICTURE = ("image", "img", "img_path", "image_path", "output_image", "jpg", "jpeg", "png", "webp", "image_file")
_CAPTION = ("prompt", "caption", "text", "txt", "input_prompt", "user_prompt")
_EDITS = (  # (name, instruction, before, after)
    ("UltraEdit", ("edit_prompt",), ("source_image",), ("edited_image",)),
    ("OmniEdit", ("edited_prompt_list",), ("src_img",), ("edited_img",)),
    ("AnyEdit", ("edit_instruction", "edit"), ("image_file",), ("edited_file",)),
    ("InstructPix2Pix", ("edit_prompt",), ("input_image", "original_image"), ("edited_image",)),
    ("HQ-Edit", ("edit",), ("input_image",), ("output_image",)),
    ("MagicBrush", ("instruction",), ("source_img",), ("target_img",)),
    ("ShareGPT-4o-Image", ("input_prompt",), ("input_image",), ("output_image",)),
    ("Janus-Pro-R1's edits", ("text",), ("input",), ("output",)),
    ("edits", ("instruction",), ("source",), ("target",)),
    ("edits", _INSTRUCTION, ("source_image",), ("target_image", *_PICTURE)),
)
SCHEMAS = [
    Schema(
        "reflection pairs",
        {
            "prompt": _CAPTION,
            "wrong": ("wrong", "negative", "bad", "rejected", "draft", "flawed"),
            "right": ("right", "positive", "good", "chosen", "target"),
        },
    ),
    *(Schema(name, {"prompt": said, "source_image": old, "image": new}) for name, said, old, new in _EDITS),
    Schema("images with prompts", {"prompt": _CAPTION, "image": _PICTURE}),
]


def findings(raw: Raw, columns: Mapping[str, str] | None = None) -> tuple[str, list[Found]]:
    """The schema of a row and the images that it holds; no images where no schema fits.

    Names in ``columns`` come first, so that a row may be read against its own names.
    """
    values = dict(raw.values)
    for ours, theirs in (columns or {}).items():
        if theirs in values:
            values[ours] = values.pop(theirs)
    for name, fits, read in _NESTED:
        if fits(values):
            return name, list(read(values))
    for schema in SCHEMAS:
        names = schema.match(values)
        if names and _are_images(values, names):
            return schema.name, list(_flat(values, names))
    return "", []


def _are_images(values: Mapping[str, Any], names: Mapping[str, str]) -> bool:
    """InstructPix2Pix calls its captions ``input`` and ``output`` too: an image is bytes, a struct or a file's name."""
    for ours in ("image", "source_image", "wrong", "right"):
        value = values[names[ours]] if ours in names else b""
        if not isinstance(value, bytes | dict | str | None):
            return False
    return True


def _flat(values: Mapping[str, Any], names: dict[str, str]) -> Iterator[Found]:
    used = set(names.values())
    aside = {ours: next((n for n in theirs if n in values and n not in used), None) for ours, theirs in ASIDE.items()}
    said = {ours: values[name] for ours, name in aside.items() if name}
    label = said.pop("label", None)
    if said.get("score") is None and label is not None:
        said["score"] = truth(label)
    used |= {name for name in aside.values() if name}
    prompt = _first(values[names["prompt"]])
    extra = _extra(values, used)
    if "wrong" not in names:
        yield Found(prompt, values[names["image"]], values.get(names.get("source_image", "")), **said, extra=extra)
        return
    yield from _pair(prompt, values[names["wrong"]], values[names["right"]], said, extra)


def _pair(prompt: Any, wrong: Any, right: Any, said: dict[str, Any], extra: dict[str, Any]) -> Iterator[Found]:
    """A rejected image and the one that mends it; what is said of them is the reason of the No."""
    own = {**said, "score": 0.0, "id": _suffixed(said.get("id"), "wrong")}
    yield Found(prompt, wrong, **own, extra=extra)
    mended = {key: value for key, value in said.items() if key in ("source", "licence")}
    identity = {"id": _suffixed(said.get("id"), "right"), "repair_of": own["id"] or "wrong"}
    yield Found(prompt, right, score=1.0, **mended, **identity, extra=extra)


def _suffixed(name: Any, word: str) -> str | None:
    return None if name is None else f"{name}-{word}"


# ---------------------------------------------------------------------------- rows of several images


def _janus_pro_r1(values: dict[str, Any]) -> Iterator[Found]:
    """All images of a prompt in one row: ``data`` is a list of {id, img | img_path, reason, score | prob, source}."""
    for entry in values["data"]:
        if not isinstance(entry, dict):
            yield Found(values["prompt"], None)
            continue
        image = entry["img"] if entry.get("img") is not None else entry.get("img_path")
        name = None if entry.get("id") is None else f"{values.get('promptid', '')}-{entry['id']}"
        score = next((entry[key] for key in ("score", "prob") if entry.get(key) is not None), "none given")
        aside = {key: entry.get(key) for key in ("reason", "source", "claims")}
        licence = entry.get("licence") or entry.get("license")
        extra = _extra(entry, {"img", "img_path", "score", "prob", "id", *aside, "licence", "license"})
        yield Found(values["prompt"], image, score=score, id=name, licence=licence, **aside, extra=extra)


def _rvr(values: dict[str, Any]) -> Iterator[Found]:
    """RvR: a draft and its redrawing, without a reason."""
    images, identity = list(values["image_list"]), next((values[n] for n in ASIDE["id"] if n in values), None)
    said = {} if identity is None else {"id": identity}
    yield from _pair(_first(values["user_prompt"]), images[0], images[1], said, {})


def _trajectory(values: dict[str, Any]) -> Iterator[Found]:
    """verl-omni's reflection trajectories: an image a step, accepted where the step is ``stop``."""
    identity, earlier = values.get("trajectory_id"), None
    for number, (image, step) in enumerate(zip(values["images"], values["steps"], strict=False), 1):
        picture = image.get("uri") if isinstance(image, dict) and "uri" in image else image
        stop = isinstance(step, dict) and step.get("action") == "stop"
        reason = (step.get("edit") if not stop else None) or step.get("reflection") if isinstance(step, dict) else None
        name = _suffixed(identity, str(number))
        yield Found(values["prompt"], picture, score=float(stop), reason=reason, id=name, repair_of=earlier, extra={})
        earlier = name


Nested = tuple[str, Callable[[dict[str, Any]], bool], Callable[[dict[str, Any]], Iterator[Found]]]


def _has_lists(*names: str) -> Callable[[dict[str, Any]], bool]:
    return lambda values: all(isinstance(values.get(name), list) for name in names)


_NESTED: list[Nested] = [
    ("Janus-Pro-R1", lambda v: "prompt" in v and _has_lists("data")(v), _janus_pro_r1),
    ("reflection trajectories", lambda v: "prompt" in v and _has_lists("images", "steps")(v), _trajectory),
    ("RvR", lambda v: "user_prompt" in v and _has_lists("image_list")(v) and len(v["image_list"]) == 2, _rvr),
]


# --------------------------------------------------------------------------------------- single values


def _first(value: Any) -> Any:
    """A prompt, where several wordings are given the first."""
    if isinstance(value, list):
        return next((item for item in value if isinstance(item, str) and item.strip()), None)
    return value


def truth(value: Any) -> float | None:
    """A label as a score: 1 or 0; None for what is no label."""
    words = {"yes": 1.0, "true": 1.0, "1": 1.0, "1.0": 1.0, "no": 0.0, "false": 0.0, "0": 0.0, "0.0": 0.0}
    return words.get(str(value).strip().casefold())


def claims_of(value: Any) -> tuple[Claim, ...]:
    """Claims as {text | claim | question, mark | label | answer} or as [text, mark].

    Raises:
        ValueError: for what is neither.
    """
    if isinstance(value, str):
        value = json.loads(value)
    claims = []
    for entry in value or ():
        if isinstance(entry, dict):
            text = next((entry[key] for key in ("text", "claim", "question") if key in entry), None)
            mark = next((entry[key] for key in ("mark", "label", "answer") if key in entry), None)
        elif isinstance(entry, list | tuple) and len(entry) == 2:
            text, mark = entry
        else:
            text, mark = entry, None
        if not isinstance(text, str) or not text.strip():
            raise ValueError("a claim without a text")
        known = None if mark is None else truth(mark)
        if mark is not None and known is None:
            raise ValueError(f"a claim's mark that is neither yes nor no: {str(mark)[:40]!r}")
        claims.append(Claim(text.strip(), None if known is None else bool(known)))
    return tuple(claims)


def _extra(values: Mapping[str, Any], used: set[str]) -> dict[str, Any]:
    """Other columns that JSON can hold, without pictures and what a store computes anew."""
    extra = values.get("extra") or {}
    if isinstance(extra, str):
        extra = json.loads(extra) if extra.startswith("{") else {}
    kept = dict(extra) if isinstance(extra, dict) else {}
    passed_over = {*used, "extra", "sha256", "width", "height"}
    return kept | {name: value for name, value in values.items() if name not in passed_over and _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) <= 64 and all(isinstance(entry, str | int) for entry in value)
    finite = not isinstance(value, float) or math.isfinite(value)
    return isinstance(value, str | int | float) and finite and len(str(value)) <= 2000


def named(found: Found, fallback: str) -> Found:
    """With an id: its own, else from where it stands."""
    if found.id is None or not str(found.id).strip():
        repair = f"{fallback.rpartition('-')[0]}-1" if found.repair_of == "wrong" else found.repair_of
        return replace(found, id=fallback, repair_of=repair)
    return found
