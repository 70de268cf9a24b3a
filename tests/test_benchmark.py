"""The skeleton of the benchmarks on GenEval's folder: draw, score, report; kills, strangers and damage."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from janus_r1.chain import Chain, Round, Settings, Verdict
from janus_r1.errors import UserError
from janus_r1.eval.benchmark import DrawOptions, draw, save_png
from janus_r1.eval.benchmark_report import report, text
from janus_r1.eval.benchmark_score import Outcome, failed, score_folder
from janus_r1.eval.geneval import prompts
from janus_r1.eval.geneval_benchmark import GenEval, official_rows
from janus_r1.eval.protocol import CONTROL_SEED
from janus_r1.eval.records import open_records, read_records


class Few(GenEval):
    """GenEval with one prompt of each tag."""

    def items(self):
        return [item for item in super().items() if int(item.id) in (0, 80, 179, 259, 353, 453)]


FEW = Few()


class Painter:
    """Draws the noise of a row; says Yes when the round's number reaches the row's parity + 2."""

    def __init__(self):
        self.calls = []

    def __call__(self, tasks, settings: Settings, first_row):
        texts = [task.prompt for task in tasks]
        self.calls.append((list(texts), settings, first_row))
        return [self.chain(text, settings, first_row + i) for i, text in enumerate(texts)]

    def chain(self, text, settings, row):
        rounds = []
        for number in range(settings.rounds):
            rng = np.random.default_rng([settings.seed, row, number])
            accepted = number >= row % 2 + 1 if settings.rounds > 1 else row % 3 == 0
            verdict = Verdict(accepted, "Yes" if accepted else "No, it is grey", rng.random(), (1, 2))
            rounds.append(Round((0,) * 64, rng.integers(0, 256, (16, 16, 3), dtype=np.uint8), verdict))
            if accepted:
                break
        return Chain(text, tuple(rounds), len(rounds) - 1, settings, row)


class Critic:
    """An image is right if its first value is even."""

    batch = 5

    def __init__(self):
        self.record = {"judge": "critic", "revision": "1", "device": "cpu"}
        self.seen = []

    def score(self, shots):
        self.seen += [(item.id, int(pixels[0, 0, 0])) for item, pixels in shots]
        return [self.outcome(item, pixels) for item, pixels in shots]

    def outcome(self, item, pixels):
        right = float(pixels[0, 0, 0] % 2 == 0)
        return Outcome(right, {"reason": "" if right else "odd", "row": item.data["row"], "detections": {}})


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


OPTIONS = DrawOptions(Settings(rounds=3, seed=7), samples=2, controls=True, batch=4)


# ------------------------------------------------------------------------------------------ draw


def test_the_folder_is_in_genevals_layout(tmp_path):
    assert draw(FEW, tmp_path / "out", Painter(), DrawOptions(Settings(rounds=1))) == 6
    one = tmp_path / "out" / "round_1" / "00080"
    assert json.loads((one / "metadata.jsonl").read_text()) == prompts()[80]
    assert sorted(path.name for path in (one / "samples").iterdir()) == [f"{i:05}.png" for i in range(4)]


def test_rows_do_not_depend_on_batches_shards_or_stops(tmp_path):
    draw(FEW, tmp_path / "whole", Painter(), OPTIONS)
    for part in (1, 0, 2):
        draw(FEW, tmp_path / "parts", Painter(), replace(OPTIONS, shard=(part, 3), batch=100))
    stopped = 0

    def stop(done, total):
        nonlocal stopped
        stopped += 1
        if stopped == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(FEW, tmp_path / "stopped", Painter(), OPTIONS, stop)
    again = Painter()
    draw(FEW, tmp_path / "stopped", again, OPTIONS)
    assert sum(len(texts) for texts, settings, _ in again.calls if settings.rounds == 3) == 4  # two of six items
    assert files(tmp_path / "whole") == files(tmp_path / "parts") == files(tmp_path / "stopped")
    assert draw(FEW, tmp_path / "whole", Painter(), OPTIONS) == 0
    arms = {path.name for path in (tmp_path / "whole").iterdir() if path.is_dir()}
    assert arms == {"round_1", "round_2", "round_3", "draft_2", "draft_3"}


def test_controls_are_independent_and_a_shared_noise_begins_anew(tmp_path):
    painter = Painter()
    draw(FEW, tmp_path / "a", painter, OPTIONS)
    chains, alone = [settings for _, settings, _ in painter.calls[:2]]
    assert (chains.rounds, alone.rounds, alone.seed) == (3, 1, 7 + CONTROL_SEED)
    assert [first for _, settings, first in painter.calls if settings.rounds == 3] == [0, 4, 8]
    painter = Painter()
    draw(FEW, tmp_path / "b", painter, replace(OPTIONS, shared_noise=True))
    assert {first for _, _, first in painter.calls} == {0} and len(painter.calls) == 12
    drawn = files(tmp_path / "b" / "round_1")
    assert drawn["00000/samples/00001.png"] == drawn["00453/samples/00001.png"]


def test_other_settings_and_other_peoples_folders_are_refused(tmp_path):
    draw(FEW, tmp_path / "out", Painter(), OPTIONS)
    with pytest.raises(UserError, match="other settings"):
        draw(FEW, tmp_path / "out", Painter(), replace(OPTIONS, settings=Settings(rounds=3, seed=8)))
    with pytest.raises(UserError, match="other settings: rewritten"):
        draw(FEW, tmp_path / "out", Painter(), replace(OPTIONS, rewritten={i.prompt: "x" for i in FEW.items()}))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(UserError, match="holds other things"):
        draw(FEW, tmp_path / "mine", Painter(), OPTIONS)
    with pytest.raises(UserError, match="lack"):
        draw(FEW, tmp_path / "new", Painter(), replace(OPTIONS, rewritten={}))
    assert not (tmp_path / "new").exists()


def test_rewritten_prompts_are_drawn_and_the_original_is_scored(tmp_path):
    painter = Painter()
    draw(FEW, tmp_path, painter, DrawOptions(Settings(rounds=1), rewritten={i.prompt: "X" for i in FEW.items()}))
    assert {text for texts, _, _ in painter.calls for text in texts} == {"X"}
    score_folder(FEW, tmp_path, Critic(), tmp_path / "s.jsonl")
    found = report(FEW, [tmp_path / "s.jsonl"], tmp_path)
    assert len(found["draw"]["rewritten"]) == 16 and "prompt rewriting on" in text(found)
    assert {row["prompt"] for row in read_records(tmp_path / "s.jsonl")[1]} == {i.prompt for i in FEW.items()}


# ----------------------------------------------------------------------------------------- score


@pytest.fixture
def drawn(tmp_path):
    draw(FEW, tmp_path / "out", Painter(), OPTIONS)
    return tmp_path / "out"


def test_equal_images_are_scored_once_and_nothing_twice(drawn, tmp_path):
    critic, out = Critic(), tmp_path / "s.jsonl"
    tally = score_folder(FEW, drawn, critic, out)
    distinct = {(path.split("/")[1], data) for path, data in files(drawn).items()}
    assert (tally.scored, tally.shared, tally.failed) == (len(distinct), 60 - len(distinct), 0)
    assert len(critic.seen) == len(distinct) < 60
    again = score_folder(FEW, drawn, Critic(), out)
    assert (again.scored, again.known) == (0, 60)
    assert len(read_records(out)[1]) == 60


def test_a_replaced_image_is_scored_anew(drawn, tmp_path):
    score_folder(FEW, drawn, Critic(), tmp_path / "s.jsonl")
    save_png(drawn / "draft_2" / "00000" / "samples" / "00000.png", np.full((16, 16, 3), 9, np.uint8))
    critic = Critic()
    assert score_folder(FEW, drawn, critic, tmp_path / "s.jsonl").scored == 1 and critic.seen == [("00000", 9)]


def test_shards_share_the_work(drawn, tmp_path):
    tallies = [score_folder(FEW, drawn, Critic(), tmp_path / f"s{part}.jsonl", shard=(part, 2)) for part in range(2)]
    assert all(t.scored for t in tallies) and sum(t.scored + t.shared for t in tallies) == 60
    together = report(FEW, [tmp_path / "s0.jsonl", tmp_path / "s1.jsonl"], drawn)
    score_folder(FEW, drawn, Critic(), tmp_path / "s.jsonl")
    assert report(FEW, [tmp_path / "s.jsonl"], drawn)["arms"] == together["arms"]


KILLED = """
import sys, time
sys.path.insert(0, {tests!r})
from test_benchmark import *
class Slow(Critic):
    def score(self, shots):
        time.sleep(0.02)
        return super().score(shots)
score_folder(FEW, Path({folder!r}), Slow(), Path({out!r}))
"""


def test_a_killed_run_goes_on_and_scores_nothing_twice(drawn, tmp_path):
    out = tmp_path / "s.jsonl"
    code = KILLED.format(tests=str(Path(__file__).parent), folder=str(drawn), out=str(out))
    process = subprocess.Popen([sys.executable, "-c", code])
    while not out.exists() or out.read_bytes().count(b"\n") < 12:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with out.open("ab") as file:
        file.write(b'{"arm": "round_1", "fi')  # a line that was cut off
    before = len(read_records(out)[1])
    assert 0 < before < 60
    tally = score_folder(FEW, drawn, Critic(), out)
    rows = read_records(out)[1]
    assert tally.known == before and len(rows) == 60 and len({(r["arm"], r["file"]) for r in rows}) == 60


def test_another_judge_another_process_and_another_file_are_refused(drawn, tmp_path):
    out = tmp_path / "s.jsonl"
    score_folder(FEW, drawn, Critic(), out)
    other = Critic()
    other.record = {**other.record, "revision": "2"}
    with pytest.raises(UserError, match=r"revision was '1' and is '2'"):
        score_folder(FEW, drawn, other, out)
    with (
        open_records(out, {"benchmark": "geneval", **Critic().record}),
        pytest.raises(UserError, match="another janus-r1 process"),
    ):
        score_folder(FEW, drawn, Critic(), out)
    (tmp_path / "thesis.txt").write_text("words\n")
    with pytest.raises(UserError, match=r"thesis\.txt, line 1"):
        score_folder(FEW, drawn, Critic(), tmp_path / "thesis.txt")
    (tmp_path / "note").write_text("words without an end")
    with pytest.raises(UserError, match="not a file of this command"):
        score_folder(FEW, drawn, Critic(), tmp_path / "note")
    assert (tmp_path / "thesis.txt").read_text() == "words\n"
    assert (tmp_path / "note").read_text() == "words without an end"


def foreign(root: Path) -> Path:
    """Drawn by somebody else: four-digit names, a grid, and every kind of damage."""
    for number, row in enumerate(prompts()):
        if number in (0, 80, 179, 259, 353, 453):
            own = root / f"{number}"
            for index in range(4):
                save_png(own / "samples" / f"{index:04}.png", np.full((16, 16, 3), 2 * index, np.uint8))
            (own / "metadata.jsonl").write_text(json.dumps(row, indent=2) + "\n")
            save_png(own / "grid.png", np.zeros((16, 16, 3), np.uint8))
    return root


def test_a_folder_that_somebody_else_drew(tmp_path):
    root = foreign(tmp_path / "images")
    tally = score_folder(FEW, root, Critic(), tmp_path / "s.jsonl")
    assert (tally.scored, tally.complaints) == (24, [])
    found = report(FEW, [tmp_path / "s.jsonl"], root)
    assert found["headline"]["mean"] == 1 and not found["partial"] and found["arm"] == ""
    assert "unknown" in text(found)


def test_every_damage_is_one_clear_line_and_the_rest_is_kept(tmp_path):
    root = foreign(tmp_path / "images")
    save_png(root / "0" / "samples" / "0001.png", np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8))
    whole = (root / "0" / "samples" / "0001.png").read_bytes()
    (root / "0" / "samples" / "0001.png").write_bytes(whole[: len(whole) // 2])
    (root / "0" / "samples" / "cat.jpg").write_bytes(b"x")
    (root / "notes").mkdir()
    (root / "80" / "metadata.jsonl").write_text(json.dumps({**prompts()[80], "tag": "colour"}))
    (root / "179" / "metadata.jsonl").write_text("{")
    (root / "259" / "samples" / "0003.png").unlink()
    (root / "353" / "samples" / "0000.png").unlink()
    (root / "353" / "samples" / "0000.png").mkdir()
    own = {**prompts()[453], "prompt": "a photo of my own"}
    (root / "453" / "metadata.jsonl").write_text(json.dumps(own))
    out = tmp_path / "s.jsonl"
    tally = score_folder(FEW, root, Critic(), out)
    told = "\n".join(tally.complaints)
    assert "0/samples/cat.jpg: not scored" in told and "notes: not scored" in told
    assert "80: not scored: its metadata.jsonl has an unknown tag 'colour'" in told
    assert "179: not scored: cannot read" in told and "353/samples/0000.png: not scored" in told
    assert "453: its metadata.jsonl is none of the 553" in told and len(tally.complaints) == 6
    assert (tally.scored, tally.failed) == (13, 1)
    (row,) = [row for row in read_records(out)[1] if "failed" in row]
    assert row["file"] == "0/samples/0001.png" and "truncated" in row["failed"]
    with pytest.raises(UserError, match=r"15 of 24 images have no score.*1 failed.*truncated"):
        report(FEW, [out], root)
    partial = report(FEW, [out], root, partial=True)
    assert partial["title"] == "GenEval (partial)" and partial["partial"]
    counts = partial["arms"][""]["counts"]
    assert (counts["scored"], counts["missing"], counts["foreign"], counts["failed"]) == (13, 15, 4, 1)
    # a mended image is scored the next time, and the complaints are not told twice
    save_png(root / "0" / "samples" / "0001.png", np.zeros((16, 16, 3), np.uint8))
    assert score_folder(FEW, root, Critic(), out).scored == 0  # equal to 0000.png, so it shares its score
    assert report(FEW, [out], root, partial=True)["arms"][""]["counts"]["failed"] == 0
    assert sum("complaint" in row for row in read_records(out)[1]) == 6


def test_a_folder_without_any_of_it_is_refused(tmp_path):
    with pytest.raises(UserError, match="no GenEval folder"):
        score_folder(FEW, tmp_path, Critic(), tmp_path / "s.jsonl")
    with pytest.raises(UserError, match="no such folder"):
        score_folder(FEW, tmp_path / "none", Critic(), tmp_path / "s.jsonl")


def test_a_scorers_nan_is_never_a_zero():
    with pytest.raises(ValueError):
        Outcome(float("nan"))
    with pytest.raises(ValueError):
        Outcome(None)


# ---------------------------------------------------------------------------------------- report


def test_the_report_counts_what_introspection_did(drawn, tmp_path):
    out = tmp_path / "s.jsonl"
    score_folder(FEW, drawn, Critic(), out)
    found = report(FEW, [out], drawn)
    value = {path: float(np.asarray(Image.open(drawn / path))[0, 0, 0] % 2 == 0) for path in files(drawn)}

    def of(arm):
        return np.array([value[path] for path in sorted(value) if path.startswith(arm)])

    first, last = of("round_1"), of("round_3")
    told = found["introspection"]
    assert found["arm"] == "round_3" and found["headline"]["mean"] == pytest.approx(last.mean())
    assert told["chains"] == 12
    assert told["improved"]["mean"] == pytest.approx(((1 - first) * last).mean())
    assert told["worse"]["mean"] == pytest.approx((first * (1 - last)).mean())
    assert told["unchanged"]["mean"] == pytest.approx((first == last).mean())
    assert told["rightly_stopped"]["mean"] == pytest.approx(last.mean())  # the painter always ends with a Yes
    assert told["wrongly_stopped"]["mean"] == pytest.approx(1 - last.mean())
    assert [one["mean"] for one in told["tokens"]] == [66, 132, 165]  # rows end after 2 and 3 rounds in turn
    assert [one["mean"] for one in told["forwards"]] == [68, 136, 170], "two more a round, to read"
    best = told["controls"]["best_of_n"]
    assert best["1"]["overall"]["mean"] == pytest.approx(first.mean())
    assert [best[n]["tokens"]["mean"] for n in "123"] == [65, 130, 195]
    equal = told["controls"]["best_of_n_equal_tokens"]
    assert equal["n"] == pytest.approx(165 / 65) and equal["reached"] and equal["tokens"]["mean"] == 165
    passes = told["controls"]["best_of_n_equal_forwards"]
    assert passes["n"] == pytest.approx(170 / 67) and passes["reached"] and passes["forwards"]["mean"] == 170
    logged = [chain for path in drawn.glob("chains-*") for row in read_records(path)[1] for chain in row["chains"]]
    p = np.array([[c["rounds"][0]["p_yes"], *(d["p_yes"] for d in c["drafts"])] for c in logged])
    drafts = np.stack([first, of("draft_2"), of("draft_3")], axis=1)
    assert best["3"]["overall"]["mean"] == pytest.approx(drafts[np.arange(12), p.argmax(1)].mean())
    yes = np.array([[c["rounds"][0]["accepted"], *(d["accepted"] for d in c["drafts"])] for c in logged])
    stop = np.where(yes.any(1), yes.argmax(1), 2)
    blind = told["controls"]["blind_redraw"]["3"]
    assert blind["overall"]["mean"] == pytest.approx(drafts[np.arange(12), stop].mean())
    assert blind["tokens"]["mean"] == pytest.approx(65 * (stop + 1).mean())
    assert blind["forwards"]["mean"] == pytest.approx(67 * (stop + 1).mean())
    for unit, target in (("tokens", 165), ("forwards", 170)):
        equal = told["controls"][f"blind_redraw_equal_{unit}"]
        most = told["controls"]["blind_redraw"]["3"][unit]["mean"]
        assert equal["reached"] == (target <= most) and equal[unit]["mean"] == pytest.approx(min(target, most))
    assert "blind redraw 3.00, fewer forwards" in text(found) or equal["reached"]
    assert "blind redraw 3" in text(found) and "rightly stopped" in text(found)


def test_a_missing_arm_is_no_headline(drawn, tmp_path):
    out = tmp_path / "s.jsonl"
    score_folder(FEW, drawn / "round_1", Critic(), out)
    with pytest.raises(UserError, match="12 of 12 images in round_1"):
        report(FEW, [out], drawn)
    assert report(replace_images(FEW, 2), [out])["headline"]["n"] == 12


def replace_images(benchmark, images):
    made = type(benchmark)()
    made.images = images
    return made


def test_failures_of_a_judge_are_counted_and_refuse_the_headline(drawn, tmp_path):
    class Moody(Critic):
        def outcome(self, item, pixels):
            return failed("timed out") if item.id == "00453" else super().outcome(item, pixels)

    out = tmp_path / "s.jsonl"
    assert score_folder(FEW, drawn, Moody(), out).failed > 0
    with pytest.raises(UserError, match=r"2 of 12 images in round_1.*timed out"):
        report(FEW, [out], drawn)
    partial = report(FEW, [out], drawn, partial=True)
    assert "color_attr" not in partial["arms"]["round_1"]["groups"]
    score_folder(FEW, drawn, Critic(), out)  # asked again, and answered
    assert not report(FEW, [out], drawn)["partial"]


def test_the_originals_summary_script_can_read_the_verdicts(drawn, tmp_path):
    score_folder(FEW, drawn, Critic(), tmp_path / "s.jsonl")
    rows = official_rows(row for row in read_records(tmp_path / "s.jsonl")[1] if row["arm"] == "round_1")
    assert set(rows[0]) == {"filename", "tag", "prompt", "correct", "reason", "metadata", "details"}
    assert json.loads(rows[0]["metadata"]) == prompts()[int(rows[0]["filename"].split("/")[1])]
    assert all(isinstance(row["correct"], bool) for row in rows)
