"""Edits that the model being trained draws itself, to be judged or rejected beside the world's mistakes.

The world thinks of an edit too many or another one than was asked for; a model's own faults are others, a corner
missing or an object half moved, and a judge that never saw them takes every one for right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from janus_r1.chain import Source
from janus_r1.engine.decoder import Decoder
from janus_r1.engine.sampling import DRAW, uniforms
from janus_r1.errors import require
from janus_r1.fields import AtLeast0, Checked, Count, Range
from janus_r1.introspect import first_drafts
from janus_r1.model.janus import Janus


@dataclass
class OwnEditsRecipe(Checked):
    """Drafts of the world's edits by the model as it is now. Off by default."""

    drafts: Count = 0
    """Of every edit that is judged or redrawn. A right one is then accepted in the place of the rendered result, a
    wrong one rejected before the world's mistakes."""
    as_drawn: bool = False
    """Judge the first draft of every edit, right or wrong as it comes. Else every other verdict is on a wrong result,
    and a model that is mostly right learns to say No too often."""
    guidance: Annotated[float, Range(ge=1)] = 1.5
    temperature: AtLeast0 = 1.0
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the drawing copy; bfloat16 is twice as fast on a CPU that multiplies it."""

    def __post_init__(self) -> None:
        """Raises UserError for values that cannot be meant."""
        super().__post_init__()
        require(self.drafts > 0 or not self.as_drawn, "own_edits.as_drawn judges drafts: set own_edits.drafts to 1")


class OwnEdits:
    """Draws them with the model that ``current`` returns at that moment."""

    def __init__(self, recipe: OwnEditsRecipe, current: Callable[[], Janus]) -> None:
        self.recipe, self.current, self.as_drawn = recipe, current, recipe.as_drawn

    def draw(self, asked: Sequence[tuple[str, Source]], seed: int) -> list[list[tuple[int, ...]]]:
        """VQ ids of the drafts of every instruction and source; random numbers follow from ``seed``."""
        count = self.recipe.drafts
        if not count or not asked:
            return [[] for _ in asked]
        decoder = Decoder(self.current())
        openings = [decoder.model.layout.opening(*pair) for pair in asked for _ in range(count)]
        uniform = uniforms(seed, list(range(len(openings))), 0, DRAW, decoder.model.image_tokens)
        ids = first_drafts(decoder, openings, uniform, self.recipe.guidance, self.recipe.temperature)
        rows = [tuple(row) for row in ids.tolist()]
        return [rows[i : i + count] for i in range(0, len(rows), count)]
