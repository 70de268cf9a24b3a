"""A sheet of whole chains for the log: what the model draws, says and redraws now."""

from __future__ import annotations

import itertools
import random

import numpy as np

from janus_r1.chain import Settings, Source
from janus_r1.introspect import introspect
from janus_r1.model.janus import Janus
from janus_r1.sheet import sheet
from janus_r1.worlds.shapes.edit_cases import train_edits
from janus_r1.worlds.shapes.prompts import train_prompts
from janus_r1.worlds.shapes.scene import render


def chain_sheet(janus: Janus, rounds: int, count: int = 6, edits: int = 0) -> np.ndarray:
    """Chains on ``count`` fixed training prompts, then on ``edits`` edits, as one picture, uint8 [H, W, 3]."""
    prompts = [prompt.text for prompt in itertools.islice(train_prompts(random.Random(5)), count)]
    sources: list[Source | None] = [None] * count
    cases = list(itertools.islice(train_edits(random.Random(5)), edits))
    prompts += [case.instruction.text for case in cases]
    sources += janus.sources([render(case.source) for case in cases])
    chains = introspect(janus, prompts, Settings(rounds=rounds, max_reason_tokens=30), sources=sources)
    return np.asarray(sheet(chains).convert("RGB"))
