"""``janus-r1 data make``: prompts -> images of several drawers -> scores and reasons of a judge -> filters -> a store.

The paper's first stage on prompts of one's own. What a call brought is kept at once (images as files, answers in a
cache), so that a build that is killed pays for nothing twice; a part of the prompts becomes a shard when all of it is
there. Several processes (``processes``, ``process``) make stores of different prompts, which training takes together.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from janus_r1.chain import Settings, Task
from janus_r1.data.drawers import (
    IMAGES,
    DiffusersDrawer,
    Drawer,
    JanusDrawer,
    Order,
    ServerDrawer,
    StoreDrawer,
    lengthen,
)
from janus_r1.data.make_recipe import Cost, DrawerRecipe, MakeRecipe, WriterRecipe, check, estimate, price
from janus_r1.data.report import Report, describe
from janus_r1.data.rows import NO_THRESHOLD, YES_THRESHOLD
from janus_r1.data.store import Claim, Record, claim, read_shard, shard_path, write_shard
from janus_r1.data.task_files import read_prompts
from janus_r1.errors import UserError, require
from janus_r1.files import locked, write_atomically, write_json
from janus_r1.images import decode_image, fingerprint
from janus_r1.model.loading import load
from janus_r1.progress import reporter
from janus_r1.rewards.build import build_rewards
from janus_r1.rewards.cache import Cache
from janus_r1.rewards.chat import Chat, Patience, api_key
from janus_r1.rewards.score import Abstained, Ensemble, Item, Score

STATE, WORK = "make.json", ".work"
ATTEMPTS = 2  # at what abstained, beside the tries of every call


@dataclass(frozen=True)
class Made:
    """A build's store, or what it would take."""

    cost: Cost
    price: float
    """By the prices of the recipe."""
    prompts: int
    report: Report | None = None
    """None for a dry run."""


@runtime_checkable
class Explains(Protocol):
    def explain(self, items: Sequence[Item]) -> list[str | Abstained]: ...


@runtime_checkable
class Marks(Protocol):
    def marked(self, items: Sequence[Item]) -> list[list[tuple[str, float]]]: ...


def make_data(recipe: MakeRecipe, resume: bool = False, dry_run: bool = False) -> Made:
    """Draw, score and store images of prompts.

    Args:
        recipe: What to make.
        resume: Go on with a build that was interrupted.
        dry_run: Say what it would take, and do nothing.

    Raises:
        UserError: for a recipe that cannot be meant, a folder in use, or where not one image was made.
    """
    check(recipe)
    prompts = list(dict.fromkeys(" ".join(prompt.split()) for prompt in read_prompts(recipe.prompts)))
    if dry_run:
        cost = estimate(recipe, len(prompts))
        return Made(cost, price(recipe, cost), len(prompts))
    out = Path(recipe.out)
    asked = {key: value for key, value in asdict(recipe).items() if key not in ("image_price", "call_price")}
    claim(out, STATE, asked, resume)
    with locked(out / WORK):
        parts = Parts(recipe, prompts)
        mine = range(recipe.process, parts.count, recipe.processes)
        left = [(shard, part) for shard, part in enumerate(mine) if not shard_path(out, shard).exists()]
        progress = reporter(out.name, len(mine) - len(left), len(mine), "part")
        for done, (shard, part) in enumerate(left, len(mine) - len(left) + 1):
            cost = parts.make(part, shard)
            progress.update(done, {"images": cost.images, "missing": sum(cost.missing.values())})
        progress.stop()
    return _finish(recipe, len(mine), len(prompts))


def _finish(recipe: MakeRecipe, shards: int, prompts: int) -> Made:
    out, cost, kept = Path(recipe.out), Cost(), 0
    for number in range(shards):
        shard = read_shard(shard_path(out, number))
        kept += shard.rows
        cost.add(shard.note)
    if not kept:
        causes = "; ".join(f"{cause} ({number})" for cause, number in Counter(cost.missing).most_common(3))
        raise UserError(f"not one image was made: {causes or 'there is no prompt for this process'}")
    report = describe(out, imported={"made": asdict(cost)})
    write_json(out / "report.json", report.as_dict())
    return Made(cost, price(recipe, cost), prompts, report)


# ------------------------------------------------------------------------------------------ a part


class Parts:
    """The parts of a build: its prompts, drawers and judges."""

    def __init__(self, recipe: MakeRecipe, prompts: list[str]) -> None:
        self.recipe, self.prompts, self.out = recipe, prompts, Path(recipe.out)
        self.work = self.out / WORK
        self.work.mkdir(parents=True, exist_ok=True)
        answers = str(self.work / "answers.sqlite")
        for reward in recipe.rewards:
            reward.cache = (reward.cache or answers) if reward.kind == "endpoint" else reward.cache
        self.rewards: Ensemble | None = build_rewards(recipe.rewards) if recipe.rewards else None
        self.drawers = [_drawer(drawer, recipe.seed) for drawer in recipe.drawers]
        self.writer = _writer(recipe.writer)
        self.cache = Cache(answers)
        members = [reward for reward, _ in self.rewards.members] if self.rewards else []
        self.explains = next((m for m in members if isinstance(m, Explains)), None) if recipe.reasons else None
        self.marks = next((m for m in members if isinstance(m, Marks)), None)
        self.asked = [*_chats(members), *([self.writer] if self.writer else [])]

    @property
    def count(self) -> int:
        return -(-len(self.prompts) // self.recipe.part)

    def make(self, number: int, shard: int) -> Cost:
        """Draw, judge and write one part; its shard's footer holds what it took."""
        began, before = time.monotonic(), self._spent()
        cost, missing = Cost(), Counter[str]()
        first = number * self.recipe.part
        prompts = self._written(self.prompts[first : first + self.recipe.part], missing)
        records: list[Record] = []
        for recipe, drawer in zip(self.recipe.drawers, self.drawers, strict=True):
            orders = [
                Order(prompt, first + position, copy)
                for position, prompt in enumerate(prompts)
                if prompt is not None
                for copy in range(recipe.images)
            ]
            drawn = self._drawn(drawer, orders, missing)
            cost.images += len(drawn) if recipe.kind != "store" else 0
            cost.server_images += len(drawn) if recipe.kind == "server" else 0
            records += self._judged(drawer.name, drawn, missing)
        records.sort(key=lambda record: record.id)  # the images of a prompt side by side
        spent = self._spent()
        asked, failed, tokens = (after - once for after, once in zip(spent, before, strict=True))
        cost.questions, cost.failed_tries, cost.tokens = asked, failed, tokens
        cost.seconds, cost.missing = round(time.monotonic() - began, 2), dict(missing)
        write_shard(shard_path(self.out, shard), records, asdict(cost))
        for path in self.work.glob(f"{number:05d}-*"):
            path.unlink()
        return cost

    def _spent(self) -> tuple[int, int, int]:
        """Questions answered; failed tries and tokens, those of images servers too."""
        spent = [chat.spent for chat in (*self.asked, *_chats(self.drawers))]
        questions = sum(chat.spent.calls for chat in self.asked)
        return questions, sum(s.failed for s in spent), sum(s.tokens for s in spent)

    def _written(self, prompts: list[str], missing: Counter[str]) -> list[str | None]:
        """The prompts, longer where there is a writer; None for one that it failed on."""
        if self.writer is None:
            return list(prompts)
        longer: list[str | None] = []
        for prompt in prompts:
            key = f"longer {self.writer.url} {self.writer.model} {prompt}"
            known = self.cache.get(key)
            answer = known if isinstance(known, str) else _again(partial(lengthen, self.writer, prompt))
            if isinstance(answer, Abstained):
                missing[f"prompt not written: {answer.cause}"] += 1
            else:
                self.cache.put(key, answer)
            longer.append(None if isinstance(answer, Abstained) else answer)
        return longer

    def _drawn(self, drawer: Drawer, orders: list[Order], missing: Counter[str]) -> dict[Order, bytes]:
        """Image files by order; each is kept as soon as it is there."""
        files: dict[Order, bytes] = {}
        for order in orders:
            path = self._path(drawer, order)
            if path.exists():
                files[order] = path.read_bytes()
        failed: dict[Order, Abstained] = {}
        for _ in range(ATTEMPTS):
            for order, file in drawer.draw([order for order in orders if order not in files]):
                if isinstance(file, Abstained):
                    failed[order] = file
                    continue
                files[order] = file
                write_atomically(self._path(drawer, order), partial(_put, file), "file")
        for order in orders:
            if order not in files:
                missing[f"not drawn: {failed[order].cause}"] += 1
        return {order: files[order] for order in orders if order in files}

    def _path(self, drawer: Drawer, order: Order) -> Path:
        """The name says all that the image follows from, so that another prompt never takes it."""
        digest = hashlib.sha256(f"{drawer.name}\0{order.prompt}".encode()).hexdigest()[:16]
        return self.work / f"{order.number // self.recipe.part:05d}-{digest}-{order.copy}.img"

    def _judged(self, name: str, drawn: dict[Order, bytes], missing: Counter[str]) -> Iterator[Record]:
        orders = list(drawn)
        pixels = [decode_image(drawn[order], name) for order in orders]
        items: list[Item] = [(Task(order.prompt), image) for order, image in zip(orders, pixels, strict=True)]
        scores = self._scores(items)
        kept = [i for i, score in enumerate(scores) if self._keeps(score, missing)]
        chosen = [items[i] for i in kept]
        reasons = self._reasons(chosen, missing)
        marks = self.marks.marked(chosen) if self.marks else [[] for _ in chosen]
        for index, reason, claims in zip(kept, reasons, marks, strict=True):
            score, order, image = scores[index], orders[index], pixels[index]
            yield Record(
                id=f"{order.number:08d}-{name}-{order.copy}",
                prompt=order.prompt,
                image=drawn[order],
                score=None if isinstance(score, Abstained) else score,
                reason=reason,
                claims=tuple(Claim(text, p >= NO_THRESHOLD) for text, p in claims),
                source=name,
                licence=self.recipe.licence,
                sha256=fingerprint(image),
                width=image.shape[1],
                height=image.shape[0],
            )

    def _scores(self, items: list[Item]) -> list[Score | None]:
        """None for all where nobody judges."""
        if self.rewards is None:
            return [None] * len(items)
        scores: list[Score | None] = list(self.rewards.score(items)) if items else []
        for _ in range(ATTEMPTS - 1):
            left = [i for i, score in enumerate(scores) if isinstance(score, Abstained)]
            again = self.rewards.score([items[i] for i in left]) if left else []
            for i, score in zip(left, again, strict=True):
                scores[i] = score
        return scores

    def _keeps(self, score: Score | None, missing: Counter[str]) -> bool:
        if isinstance(score, Abstained):
            missing[f"not scored: {score.cause}"] += 1
            return False
        if score is not None and not self.recipe.undecided and NO_THRESHOLD <= score < YES_THRESHOLD:
            missing["undecided"] += 1
            return False
        return True

    def _reasons(self, items: list[Item], missing: Counter[str]) -> list[str]:
        """Empty where there is none: the image is kept, and counted."""
        if self.explains is None or not items:
            return [""] * len(items)
        said = self.explains.explain(items)
        missing.update(f"without a reason: {one.cause}" for one in said if isinstance(one, Abstained))
        return ["" if isinstance(one, Abstained) else one for one in said]


def _chats(callers: Sequence[object]) -> list[Chat]:
    found = (getattr(one, "chat", None) for one in callers)
    return [chat for chat in found if isinstance(chat, Chat)]


def _put(data: bytes, path: Path) -> None:
    path.write_bytes(data)


def _again(ask: Any) -> Any:
    """The first answer of a few."""
    answer = ask()
    for _ in range(ATTEMPTS - 1):
        if isinstance(answer, Abstained):
            answer = ask()
    return answer


def _drawer(recipe: DrawerRecipe, seed: int) -> Drawer:
    if recipe.kind == "store":
        return StoreDrawer(Path(recipe.folder), recipe.source)
    if recipe.kind == "server":
        patience = Patience(recipe.tries, recipe.timeout_s, recipe.backoff_s)
        chat = Chat(recipe.url, recipe.model, api_key(recipe.api_key_env), patience, IMAGES, 100_000_000)
        return ServerDrawer(chat, recipe.source, recipe.size, recipe.concurrency, seed)
    if recipe.kind == "diffusers":
        where = (recipe.dtype, recipe.device, recipe.batch, seed)
        return DiffusersDrawer.load(recipe.model, recipe.source, recipe.options, *where)
    settings = Settings(rounds=1, guidance=recipe.guidance, temperature=recipe.temperature, seed=seed)
    return JanusDrawer(load(recipe.model, recipe.dtype, recipe.device), recipe.source, settings)


def _writer(recipe: WriterRecipe) -> Chat | None:
    if not recipe.url:
        return None
    require(bool(recipe.model), "writer needs a model: the name that its server knows")
    return Chat(recipe.url, recipe.model, api_key(recipe.api_key_env))
