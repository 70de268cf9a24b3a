"""The format ``repair``: what is trained is what is sampled, and chains mend their own drafts."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from janus_r1.api import JanusR1
from janus_r1.chain import AGAIN, Settings, Task, Verdict, load_chain
from janus_r1.engine.decoder import Decoder, Said
from janus_r1.errors import UnknownWords
from janus_r1.introspect import introspect, judge
from janus_r1.model.loading import load, save
from janus_r1.segments import Drawn, Row, Seen, Text
from janus_r1.train.loop import Run, RunOptions
from janus_r1.train.objective import targets
from janus_r1.worlds.shapes.training.model import known_words
from janus_r1.worlds.shapes.training.repair import RepairRecipe, Rows, repair
from janus_r1.worlds.shapes.training.repair_rows import RepairRows

LISTING = "small red ring: red ring Yes, small blue star: red star No"


@pytest.fixture
def repairing(tiny):
    tiny.core.config.introspection = "repair"
    return tiny


def flat(*rows: Row) -> list:
    """A row as its tokens; an image that is seen is one of them."""
    tokens: list = []
    for segment in (segment for row in rows for segment in row):
        tokens += [segment.pixels.tobytes()] if isinstance(segment, Seen) else segment.ids
    return tokens


class Stopped(Exception):
    """A run is cut off."""


class Script:
    """Makes a decoder say what it is told, and writes down what every stream was fed."""

    def __init__(self, monkeypatch, layout, verdicts: list[str]) -> None:
        self.layout, self.verdicts, self.fed = layout, iter(verdicts), {}
        self.open, self.feed = Decoder.open, Decoder.feed
        monkeypatch.setattr(Decoder, "open", lambda *args: self.opened(*args))
        monkeypatch.setattr(Decoder, "feed", lambda *args: self.appended(*args))
        monkeypatch.setattr(Decoder, "say", lambda *args, **options: self.say(*args, **options))

    def opened(self, decoder, rows, unconditional=None):
        stream = self.open(decoder, rows, unconditional)
        self.fed[id(stream)] = flat(*rows[:1])
        self.streams = [*getattr(self, "streams", []), stream]
        return stream

    def appended(self, decoder, stream, rows, unconditional=None):
        if id(stream) in self.fed:
            self.fed[id(stream)] += flat(*rows[:1])
        self.feed(decoder, stream, rows, unconditional)

    def say(self, decoder, stream, uniform, allowed_first=(), *_, stop=None, width=1) -> Said:
        text = next(self.verdicts) if allowed_first else LISTING
        said = self.layout.verdict(text).ids if allowed_first else self.layout.listing(text).ids
        self.fed[id(stream)] += said[:-1]  # the last one is not fed
        return Said([said], [(0.0,) * len(said)], torch.tensor([[0.9, 0.1]]))


def test_what_is_sampled_is_laid_out_as_what_is_trained(repairing, monkeypatch):
    script = Script(monkeypatch, repairing.layout, ["No, make the blue star red.", "Yes."])
    chain = introspect(repairing, [Task("a red ring and a red star")], Settings(rounds=3))[0]
    drawn, looked, edited, looked_again = (script.fed[id(stream)] for stream in script.streams)
    layout, first, second = repairing.layout, *chain.rounds
    assert drawn == flat(layout.draw(chain.prompt, first.ids))[: len(drawn)]
    for looking, item in ((looked, first), (looked_again, second)):
        row = layout.look(chain.prompt, Seen(item.pixels, 64), LISTING, item.verdict.text)
        assert [*looking, layout.special.eos] == flat(row)
    lead = layout.edit_prompt(first.ids, "make the blue star red")
    assert edited == flat(lead)  # a repair sees the draft and the instruction, and nothing of the task
    assert (first.repairs, second.repairs) == (None, 0)
    assert first.verdict.instruction == "make the blue star red" and second.verdict.instruction == ""


def test_what_is_learnt_is_the_list_the_word_and_the_instruction(repairing):
    layout = repairing.layout
    row = layout.look("a ring", Seen(np.zeros((64, 64, 3), np.uint8), 64), LISTING, "No, remove the star.", 6.0)
    wanted = targets([row])
    spelled = repairing.tokenizer.decode(wanted.text_ids.tolist())
    assert spelled == f" {LISTING}\nNo, remove the star.<｜end▁of▁sentence｜>"
    weights = dict(zip(wanted.text_ids.tolist(), wanted.text_weights.tolist(), strict=True))
    assert weights[layout.special.eos] == 1.0
    words = [repairing.tokenizer.decode([i]).strip() for i in wanted.text_ids.tolist()]
    spoken = [w for word, w in zip(words, wanted.text_weights.tolist(), strict=True) if word in ("Yes", "No")]
    assert spoken == [4.0, 4.0, 6.0] and not len(wanted.image_ids)  # two marks, then the word


def test_a_given_list_teaches_all_but_what_stands_at_a_place(repairing):
    listing = "small red ring @34: red ring Yes, small blue star @C4: red star No, star below ring: left of No"
    wanted = targets([repairing.layout.compare_list("a ring", listing, "No, remove the star.", 6.0)])
    ids, weights = wanted.text_ids.tolist(), wanted.text_weights.tolist()
    end = ids.index(repairing.layout.list_end.ids[-1])
    learnt = [i for i, weight in zip(ids[:end], weights[:end], strict=True) if weight]
    assert repairing.tokenizer.decode(learnt) == " red ring Yes red star No, star below ring: left of No"
    assert [w for w in weights[:end] if w not in (0.0, 1.0)] == [4.0, 4.0, 4.0]
    assert weights[end + 1] == 6.0 and all(weight == 1.0 for weight in weights[end + 2 :])


def test_recorded_log_probs_are_those_of_one_long_pass(repairing):
    """The slow way: the whole row through the model at once."""
    settings = Settings(rounds=1, text_temperature=1.0, text_top_k=0, max_list_tokens=9, max_reason_tokens=5)
    item = introspect(repairing, [Task("a red ring")], settings)[0].rounds[0]
    layout, verdict = repairing.layout, item.verdict
    before = (*layout.opening("a red ring").seeing, Seen(item.pixels, 64), layout.self_check)
    ended = () if verdict.list_ids[-1] == layout.list_end.ids[-1] else (layout.list_end,)
    row = (*before, Text(verdict.list_ids), *ended, Text(verdict.ids))
    with torch.no_grad():
        hidden = repairing.hidden(repairing.embed_rows([row]))[0]
        logprobs = repairing.text_logits(hidden).log_softmax(-1)
    start = sum(map(len, before))
    listed = [float(logprobs[start - 1 + i, token]) for i, token in enumerate(verdict.list_ids)]
    assert listed == pytest.approx(verdict.list_logprobs, abs=2e-3)
    word = start + len(verdict.list_ids) + sum(map(len, ended))
    yes, no = logprobs[word - 1, layout.special.yes], logprobs[word - 1, layout.special.no]
    assert verdict.p_yes == pytest.approx(float(torch.sigmoid(yes - no)), abs=2e-3)
    assert len(verdict.list_ids) <= 9 and verdict.tokens == len(verdict.list_ids) + len(verdict.ids)


def test_a_chain_is_saved_with_its_lists_and_read_again(repairing, tmp_path):
    chain = introspect(repairing, [Task("a red ring")], Settings(rounds=2, max_list_tokens=6, early_stop=False))[0]
    chain.save(tmp_path / "c")
    again = load_chain(tmp_path / "c")
    assert [replace(r, pixels=None) for r in again.rounds] == [replace(r, pixels=None) for r in chain.rounds]
    assert again.rounds[0].verdict.list_ids and again.tokens == chain.tokens == sum(
        len(r.ids) + len(r.verdict.ids) + len(r.verdict.list_ids) for r in chain.rounds
    )


@pytest.mark.parametrize(
    ("redraw", "said", "parents"),
    [
        ("auto", "No, make the star red.", [None, 0, 1]),
        ("auto", f"No, {AGAIN}.", [None, None, None]),
        ("repair", f"No, {AGAIN}.", [None, 0, 1]),
        ("again", "No, make the star red.", [None, None, None]),
        ("auto", "No", [None, None, None]),
    ],
)
def test_how_a_rejected_draft_is_followed(repairing, monkeypatch, redraw, said, parents):
    Script(monkeypatch, repairing.layout, [said] * 3)
    chain = introspect(repairing, [Task("a star")], Settings(rounds=3, redraw=redraw))[0]
    assert [item.repairs for item in chain.rounds] == parents


def test_faults_are_the_marks_that_say_no():
    said = Verdict(False, "No", 0.0, (1,), listing="red star: blue star No, ring: ring Yes, nothing: cross No")
    assert said.faults == 2 and Verdict(True, "Yes", 1.0, (1,)).faults == 0


@pytest.mark.parametrize(("most", "parents"), [(1, [None, None, None]), (2, [None, 0, 1])])
def test_a_draft_with_many_faults_is_drawn_anew(repairing, monkeypatch, most, parents):
    Script(monkeypatch, repairing.layout, ["No, make the star red."] * 3)
    monkeypatch.setattr(Verdict, "faults", 2)
    settings = Settings(rounds=3, repair_most=most)
    assert [item.repairs for item in introspect(repairing, [Task("a star")], settings)[0].rounds] == parents


def test_the_best_draft_so_far_is_the_one_that_is_mended(repairing, monkeypatch):
    script = Script(monkeypatch, repairing.layout, ["No, make the star red."] * 3)
    p_yes = iter([0.4, 0.4, 0.1, 0.1, 0.2, 0.2])  # of the list, which nobody reads, and of the word

    def say(*args, **options):
        first = next(p_yes)
        return replace(script.say(*args, **options), first_probs=torch.tensor([[first, 1 - first]]))

    monkeypatch.setattr(Decoder, "say", say)
    chain = introspect(repairing, [Task("a star")], Settings(rounds=3, repair_from="best", final="best"))[0]
    assert [item.repairs for item in chain.rounds] == [None, 0, 0] and chain.final == 0


def test_a_row_does_not_depend_on_its_batch(repairing):
    settings = Settings(rounds=2, max_list_tokens=8, max_reason_tokens=6, early_stop=False)
    together = introspect(repairing, [Task("a ring"), Task("two red stars")], settings)
    alone = introspect(repairing, [Task("two red stars")], settings, first_row=1)
    assert [r.ids for r in together[1].rounds] == [r.ids for r in alone[0].rounds]
    assert [r.verdict.list_ids for r in together[1].rounds] == [r.verdict.list_ids for r in alone[0].rounds]


def test_judging_a_given_picture_lists_first(repairing):
    verdict = judge(repairing, [np.zeros((64, 64, 3), np.uint8)], [Task("a ring")], Settings(max_list_tokens=5))[0]
    assert 1 <= len(verdict.list_ids) <= 5 and 0 <= verdict.p_yes <= 1


def test_the_format_is_part_of_the_model(repairing, tmp_path):
    save(repairing, tmp_path / "model")
    assert load(str(tmp_path / "model")).format == "repair"
    assert load("tiny-base").format == "paper"


def test_rows_of_repairs_begin_with_the_draft_and_end_with_a_picture(repairing):
    rng = random.Random(0)
    rows = RepairRows(repairing, dense=0.5, dropout=0.0)
    for row in rows.mend_spoilt(6, rng):
        source, target = (segment for segment in row if isinstance(segment, Drawn))
        assert target.learn and not source.learn and source.ids != target.ids
    looked = rows.look(rows.rendered(6, 0.5, rng))
    assert all(isinstance(row[-1], Text) and row[-1].learn and row[-2].learn for row in looked)


def test_a_prompt_outside_the_models_language_is_answered_with_a_warning(repairing, recwarn):
    model = JanusR1(repairing)
    settings = {"rounds": 1, "max_list_tokens": 3, "max_reason_tokens": 2}
    model.generate("a corgi on a red sofa", **settings)
    assert not [w for w in recwarn if w.category is UnknownWords]  # nobody said which words it knows
    repairing.core.config.prompt_words = known_words()
    model.generate("Please draw two red rings beneath a small blue cross, and a heart over the cross.", **settings)
    assert not [w for w in recwarn if w.category is UnknownWords]
    with pytest.warns(UnknownWords, match="corgi, sofa"):
        model.generate("a corgi on a red sofa", **settings)


def test_a_stage_of_repairs_trains_all_tasks_and_can_be_taken_up_again(tiny_folder, tmp_path):
    rows = Rows(draw=4, look=4, repair=4, edit=2, judge_edit=4, compare=2, see=2)
    options = {"rows": rows, "micro_batch": 11, "drafts": 8, "refresh": 2, "own_drawn": 0.5, "model": str(tiny_folder)}
    short = RunOptions(out=str(tmp_path / "run"), steps=2, precision="no", preview_every=0, save_every=1, log_every=1)
    repair(RepairRecipe(run=short, **options))
    folder = repair(RepairRecipe(run=replace(short, steps=4), **options), resume=True)
    figures = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in figures] == [0, 1, 2, 3]
    assert all(row[name] > 0 for row in figures for name in ("image_loss", "look_loss", "seeing_loss"))
    made = load(str(folder), "bfloat16")
    assert made.format == "repair" and not made.unknown_words("two red rings")
    before = dict(load(str(tiny_folder)).named_parameters())
    moved = {
        name.split(".")[2]
        for name, value in made.named_parameters()
        if not torch.equal(value.bfloat16(), before[name].bfloat16())
    }
    assert "language_model" in moved and not moved & {"vision_model", "aligner", "vqmodel"}


def test_a_stage_goes_on_with_its_own_pictures(tiny_folder, tmp_path):
    """Stopped between two refreshes, when what is looked at cannot be drawn again by the weights of now."""
    options = {
        "rows": Rows(draw=4, look=6, repair=4, edit=2, judge_edit=4, compare=2, see=0),
        "model": str(tiny_folder),
    }
    options |= {"drafts": 8, "refresh": 3, "kept": 15, "own_drawn": 0.5, "lr": 1e-3}
    run = RunOptions(out=str(tmp_path / "whole"), steps=6, precision="no", preview_every=0, save_every=1, trackers=[])
    whole = repair(RepairRecipe(run=run, **options))
    run = replace(run, out=str(tmp_path / "parts"))
    with pytest.MonkeyPatch.context() as patch:
        update = Run.update

        def stop_at_5(self, *args, **kwargs):
            if self.done == 5:
                raise Stopped
            return update(self, *args, **kwargs)

        patch.setattr(Run, "update", stop_at_5)
        with pytest.raises(Stopped):
            repair(RepairRecipe(run=run, **options))
    parts = repair(RepairRecipe(run=run, **options), resume=True)
    a, b = (load_file(folder / "model.safetensors") for folder in (whole, parts))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
