"""The world ``shapes`` as the rest of the package knows it: tasks, truth, right and wrong images, things to say."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from janus_r1.chain import Chain, Task
from janus_r1.worlds.base import (
    CannotCheck,
    Check,
    Checklist,
    Judgement,
    Kind,
    Lesson,
    Observations,
    Question,
    Sight,
    World,
    WorldTask,
)
from janus_r1.worlds.shapes.edit_cases import EDIT_COUNTS, FAMILIES, EditCase, EditTask, edit_split, train_edits
from janus_r1.worlds.shapes.edits import CannotEdit
from janus_r1.worlds.shapes.findings import nearest as mending
from janus_r1.worlds.shapes.language import parse, parse_instruction
from janus_r1.worlds.shapes.mistakes import side_effects, wrong_edits
from janus_r1.worlds.shapes.observing import instruction_mends, marks_wanted, observations
from janus_r1.worlds.shapes.prompts import TRAIN_WEIGHTS, Prompt, near_miss, split, train_prompts
from janus_r1.worlds.shapes.questions import ask, checklist, enumerate_objects, statements
from janus_r1.worlds.shapes.repairs import as_scene, background_of
from janus_r1.worlds.shapes.scene import IMAGE_SIZE, Description, Scene, Slot, random_description, render, sample_scene
from janus_r1.worlds.shapes.verifier import find_objects, look, verify, verify_scene
from janus_r1.worlds.shapes.verify_edit import make_plan, verify_edit

SPLITS = ("test", "dense", "held_out", "validation")
CHECKED = 7  # items a checklist
PLACED = ("recolour", "replace", "remove")  # edits that happen where an object stands


@dataclass(frozen=True, eq=False)
class DrawTask(WorldTask):
    """A prompt with what it says."""

    description: Description | None = None


def _of_families(stream: Iterator[Prompt], families: Sequence[str], rng: random.Random) -> Iterator[Prompt]:
    """Each family as often as it is named."""
    while True:
        wanted = rng.choice(families)
        yield next(prompt for prompt in stream if prompt.family == wanted)


def draw_task(prompt: Prompt) -> DrawTask:
    return DrawTask(prompt.text, family=prompt.family, description=prompt.description)


def edit_task(case: EditCase) -> EditTask:
    edits = case.instruction.edits
    return EditTask(
        case.instruction.text,
        render(case.source),
        family=case.instruction.family,
        target=render(case.target),
        settled=all(edit.kind in PLACED for edit in edits),
        steps=len(edits),
        retold=enumerate_objects(case.target),
        edits=edits,
        case=case,
    )


class Shapes(World):
    """Eight shapes in ten colours: prompts and edits that an exact verifier reads off the pixels."""

    name = "shapes"
    image_size = IMAGE_SIZE

    # ---------------------------------------------------------------------------------------- tasks

    def shares(self, kind: Kind = "draw") -> Mapping[str, float]:
        return TRAIN_WEIGHTS if kind == "draw" else dict.fromkeys(FAMILIES, 1 / len(FAMILIES))

    def splits(self, kind: Kind = "draw") -> tuple[str, ...]:
        return SPLITS if kind == "draw" else tuple(EDIT_COUNTS)

    def tasks(self, split_name: str, kind: Kind = "draw") -> Sequence[WorldTask]:
        if kind == "draw":
            return [draw_task(prompt) for prompt in split(split_name)]
        return [edit_task(case) for case in edit_split(split_name)]

    def stream(self, rng: random.Random, kind: Kind = "draw", families: Sequence[str] = ()) -> Iterator[WorldTask]:
        if kind == "edit":
            return map(edit_task, train_edits(rng, families or FAMILIES))
        stream = train_prompts(rng)
        return map(draw_task, _of_families(stream, families, rng) if families else stream)

    # ---------------------------------------------------------------------------------------- truth

    def check(self, task: Task, image: np.ndarray) -> Check:
        for pixels in (image, task.source):
            if pixels is not None and pixels.shape[:2] != (IMAGE_SIZE, IMAGE_SIZE):
                raise CannotCheck(f"the world's images are {IMAGE_SIZE}x{IMAGE_SIZE}: not {pixels.shape[:2]}")
        if task.source is None:
            description = task.description if isinstance(task, DrawTask) else parse(task.prompt)
            if description is None:
                raise _foreign(task)
            return verify(image, description)
        edits = task.edits if isinstance(task, EditTask) else parse_instruction(task.prompt)
        if edits is None:
            raise _foreign(task)
        try:
            return verify_edit(task.source, image, edits)
        except CannotEdit as error:
            raise CannotCheck(f"the edit does not fit its source: {error}") from None

    # --------------------------------------------------------------------------- right and wrong images

    def render(self, tasks: Sequence[WorldTask], rng: random.Random) -> list[np.ndarray]:
        return [render(sample_scene(_description(task), rng)) for task in tasks]

    def spoil(self, tasks: Sequence[WorldTask], rng: random.Random) -> list[np.ndarray]:
        changed = [near_miss(Prompt(task.prompt, task.family, _description(task)), rng) for task in tasks]
        return [render(sample_scene(description, rng)) for description in changed]

    def lessons(self, count: int, wrong: int, rng: random.Random, families: Sequence[str] = ()) -> list[Lesson]:
        stream, found = train_edits(rng, families or FAMILIES), list[Lesson]()
        while len(found) < count:
            cases = list(islice(stream, count - len(found)))
            drawn = [(case, [case.target, *_mistakes(case, wrong, rng)]) for case in cases]
            found += [_lesson(case, results) for case, results in drawn if _readable(case)]
        return found

    def comparisons(self, count: int, said: int, rng: random.Random, families: Sequence[str] = ()) -> list[Lesson]:
        cases = list(islice(train_edits(rng, families or FAMILIES), count))
        after = [case.target if i % 2 == 0 else _mistakes(case, 1, rng)[0] for i, case in enumerate(cases)]
        return [
            _lesson(case, [scene], tuple(statements(case.source, scene, said, rng)))
            for case, scene in zip(cases, after, strict=True)
        ]

    def pictures(self, count: int, seed: int, all_combinations: bool = False) -> list[tuple[WorldTask, np.ndarray]]:
        rng = random.Random(seed)
        scenes = [sample_scene(random_description(rng), rng, all_combinations) for _ in range(count)]
        return [(DrawTask(enumerate_objects(scene), description=_whole(scene)), render(scene)) for scene in scenes]

    def nearest(self, task: WorldTask, image: np.ndarray, rng: random.Random) -> np.ndarray | None:
        view = look(image)
        try:
            scene = as_scene(view.objects, background_of(view))
        except CannotEdit:
            return None
        path = mending(scene, _description(task), rng)
        return None if path is None else render(path[-1][1]) if path else image

    def marks(self, task: Task, image: np.ndarray, listing: str) -> Sequence[bool | None]:
        """Of prompts; edits have none yet."""
        description = None if task.source is not None else parse(task.prompt)
        return () if description is None else marks_wanted(find_objects(image), description, listing)

    def mends(self, task: Task, image: np.ndarray, instruction: str) -> bool:
        description = None if task.source is not None else parse(task.prompt)
        return description is not None and instruction_mends(find_objects(image), description, instruction)

    def observations(self, tasks: Sequence[WorldTask], chains: Sequence[Chain]) -> Observations:
        """Of prompts; edits have none yet."""
        if any(task.source is not None for task in tasks):
            return {}
        return observations(chains, [_description(task) for task in tasks])

    # ------------------------------------------------------------------------------------ things to say

    def sights(self, count: int, rng: random.Random, **shares: float) -> list[Sight]:
        prompts = list(islice(train_prompts(rng), count))
        scenes = [sample_scene(prompt.description, rng) for prompt in prompts]
        return [_sight(prompt, scene, rng, **shares) for prompt, scene in zip(prompts, scenes, strict=True)]


def _foreign(task: Task) -> CannotCheck:
    return CannotCheck(f"not in the world's language: {task.prompt[:80]!r}")


def _description(task: WorldTask) -> Description:
    """
    Raises:
        CannotCheck: if the prompt is not in the world's language.
    """
    description = task.description if isinstance(task, DrawTask) else parse(task.prompt)
    if description is None:
        raise _foreign(task)
    return description


def _whole(scene: Scene) -> Description:
    """Everything about a scene's objects but their places."""
    return Description(tuple(Slot(o.shape, o.colour, o.size) for o in scene.objects))


# ------------------------------------------------------------------------------------- lessons on edits


def _lesson(case: EditCase, results: Sequence[Scene], said: tuple[tuple[str, bool], ...] = ()) -> Lesson:
    return Lesson(edit_task(case), tuple(render(scene) for scene in results), said)


def _readable(case: EditCase) -> bool:
    """Whether the verifier finds in the source's pixels what the instruction means."""
    try:
        make_plan(look(render(case.source)).objects, case.instruction.edits)
    except CannotEdit:
        return False
    return True


def _mistakes(case: EditCase, count: int, rng: random.Random) -> list[Scene]:
    """Different wrong results: as often another edit than the one asked for as one change too many."""
    mistakes: tuple[Callable[[EditCase, random.Random], dict[str, Scene]], ...] = (wrong_edits, side_effects)
    kinds = [list(made(case, rng).values()) for made in mistakes]
    for scenes in kinds:
        rng.shuffle(scenes)
    chosen: list[Scene] = []
    while len(chosen) < count and any(kinds):
        chosen.append(rng.choice([scenes for scenes in kinds if scenes]).pop())
    return chosen


# ------------------------------------------------------------------------------------------- sights


def _sight(
    prompt: Prompt, scene: Scene, rng: random.Random, judge: float, checklist: float, easy: float, describe: float
) -> Sight:
    kind = rng.random()
    if kind < judge:
        return _judgement(prompt, easy, rng)
    if kind < judge + checklist:
        return Checklist(render(scene), "Which are there?", _items(scene, rng))
    return Question(render(scene), *ask(scene, prompt, rng, describe))


def _items(scene: Scene, rng: random.Random) -> list[tuple[str, bool]]:
    return checklist(scene, CHECKED, rng)


def _judgement(prompt: Prompt, easy: float, rng: random.Random) -> Judgement:
    """Half the pictures are made to be right."""
    if rng.random() < easy:
        prompt = next(p for p in train_prompts(rng) if p.family in ("single_object", "colors"))
    wanted = prompt.description
    if rng.random() < 0.5:
        other = next(p for p in train_prompts(rng) if p.family == prompt.family)
        wanted = other.description if rng.random() < easy else near_miss(prompt, rng)
    scene = sample_scene(wanted, rng)
    return Judgement(render(scene), prompt.text, verify_scene(scene, prompt.description).verdict)
