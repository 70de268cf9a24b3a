"""python studies/eyes_and_hands.py MODEL --split dense: how far a model's drafts get if others did the comparing.

Every wrong draft is mended by an instruction that comes from the truth (``truth``), or from the model's own list of
what it sees, compared with the prompt in code (``list``): what is left to the model is seeing and mending. Beside them
stands what it does by itself (``own``). Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from janus_r1.chain import Settings, Task
from janus_r1.engine.decoder import Decoder
from janus_r1.engine.sampling import DRAW, Place, uniforms
from janus_r1.eval.protocol import choose_tasks
from janus_r1.eval.statistics import figure
from janus_r1.introspect import first_drafts, introspect, look
from janus_r1.model.loading import load
from janus_r1.segments import Source
from janus_r1.worlds.base import world
from janus_r1.worlds.shapes.edits import Edit
from janus_r1.worlds.shapes.findings import look_and_say, write_repairs
from janus_r1.worlds.shapes.observing import listed
from janus_r1.worlds.shapes.repairs import Repair, assign, repairs
from janus_r1.worlds.shapes.scene import COLOURS, RELATIONS, SHAPES, SIZES, Description, Slot, name
from janus_r1.worlds.shapes.verifier import Seen, find_objects, verify

LOOKS = {name(Slot(s, c, z)): (s, c, z) for s in SHAPES for c in COLOURS for z in SIZES}


def from_list(listing: str, description: Description) -> str:
    """The instruction that a list of what is seen asks for; empty if all is well."""
    said = [entry.seen for entry in listed(listing)]
    objects = [Seen(*LOOKS[what], (8.0 * i, 8.0 * i)) for i, what in enumerate(w for w in said if w in LOOKS)]
    bare = Description(description.slots, (), description.alike)
    first = next((r for r in repairs(objects, bare) if r.edits), None)
    if first:
        return write_repairs([first])
    places = [what for what in said if any(f" {r} " in what for r in RELATIONS) or " beside " in what]
    chosen = assign(objects, bare)
    for (a, where, b), seen in zip(description.relations, places, strict=False):
        one, other = chosen[a], chosen[b]
        if f" {where} " not in seen and one is not None and other is not None:
            names = [Slot(objects[i].shape, objects[i].colour) for i in (one, other)]
            return write_repairs([Repair((Edit("move", names[0], where, names[1]),))])
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--split", default="dense")
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--drafts", type=int, default=5)
    parser.add_argument("--dtype", default="bfloat16")
    args = parser.parse_args()
    model = load(args.model, args.dtype)
    tasks = choose_tasks(world("shapes"), args.split, args.limit, "draw")
    settings = Settings(rounds=args.drafts)
    chains = introspect(model, tasks, settings, max_batch=128)
    descriptions = [task.description for task in tasks]
    right = {
        "own": [
            [
                verify(c.rounds[min(k, len(c.rounds) - 1)].pixels, d).correct
                for c, d in zip(chains, descriptions, strict=True)
            ]
            for k in range(args.drafts)
        ]
    }
    for way in ("truth", "list"):
        right[way] = mended(model, tasks, [c.rounds[0] for c in chains], way, settings)
    clusters = range(len(tasks))
    shares = {way: [figure(np.array(r, float), clusters) for r in rows] for way, rows in right.items()}
    print(json.dumps({"model": args.model, "split": args.split, "right_after": shares}, indent=1))


def mended(model, tasks: list[Task], firsts, way: str, settings: Settings) -> list[list[bool]]:
    """Whether each task's draft is right, after one draft, two, ..."""
    drafts = [(item.ids, item.pixels, item.verdict.listing) for item in firsts]
    done = [False] * len(tasks)
    shares = [[verify(d[1], t.description).correct for d, t in zip(drafts, tasks, strict=True)]]
    for number in range(1, settings.rounds):
        decoder, asked = Decoder(model), []
        for i, (task, (_, pixels, listing)) in enumerate(zip(tasks, drafts, strict=True)):
            if way == "truth":
                said = look_and_say(find_objects(pixels), task.description)
                instruction = said.instruction if said.repairs else ""
            else:
                instruction = from_list(listing, task.description)
            done[i] = done[i] or not instruction
            if not done[i]:
                asked.append((i, instruction))
        if asked:
            leads = [model.layout.opening(words, Source(*drafts[i][:2])) for i, words in asked]
            uniform = uniforms(settings.seed + number, [i for i, _ in asked], number, DRAW, model.image_tokens)
            ids = first_drafts(decoder, leads, uniform, settings.guidance, settings.repair_temperature)
            images = model.decode_image(ids)
            openings = [model.layout.opening(tasks[i].prompt).seeing for i, _ in asked]
            lists = look(decoder, openings, list(images), settings, [Place(number, i) for i, _ in asked])
            for (i, _), row, image, verdict in zip(asked, ids.tolist(), images, lists, strict=True):
                drafts[i] = (tuple(row), image, verdict.listing)
        shares.append([verify(d[1], t.description).correct for d, t in zip(drafts, tasks, strict=True)])
    return shares


if __name__ == "__main__":
    main()
