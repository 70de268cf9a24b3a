"""GenEval 2, DPG-Bench, WISE_Verified and UniGenBench++: quirks by hand, with a judge that answers from a table."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from endpoint_server import Endpoint
from janus_r1.chain import Chain, Round, Settings, Verdict
from janus_r1.commands import benchmarks as commands
from janus_r1.errors import UserError
from janus_r1.eval.benchmark import DrawOptions, draw, save_png
from janus_r1.eval.benchmark_report import report
from janus_r1.eval.benchmark_score import score_folder
from janus_r1.eval.dpg import Dpg, DpgScorer, Question, read_questions, tile_score
from janus_r1.eval.geneval2 import GenEval2, SoftTifa, geometric_mean, spellings
from janus_r1.eval.unigenbench import UniGenBench, UniGenScorer
from janus_r1.eval.vlm_judge import First
from janus_r1.eval.wise import Wise, WiseScorer, read_score
from janus_r1.rewards.score import Abstained


class Judge:
    """``says``: (question, mean grey of the image) -> an answer."""

    def __init__(self, says):
        self.says, self.asked = says, []
        self.record = {"judge": "table", "revision": "1", "device": "cpu"}

    def answer(self, asks):
        self.asked += [ask.text for ask in asks]
        return [self.says(ask.text, int(ask.image.mean())) for ask in asks]

    first = answer


def grey(level: int, side: int = 16) -> np.ndarray:
    return np.full((side, side, 3), level, np.uint8)


def paint(tasks, settings, first_row):
    """Row n is grey of level n."""
    said = Verdict(True, "Yes", 0.9, (1,))
    return [
        Chain(task.prompt, (Round((0,) * 4, grey(first_row + i), said),), 0, settings, first_row + i)
        for i, task in enumerate(tasks)
    ]


def drawn(benchmark, folder: Path) -> Path:
    draw(benchmark, folder, paint, DrawOptions(Settings(rounds=1)))
    return folder


# ------------------------------------------------------------------------------------- GenEval 2

ROWS = [
    {
        "prompt": "three dogs",
        "atom_count": 3,
        "vqa_list": [["How many dogs are in the image?", "three"], ["Is there a dog?", "Yes"]],
        "skills": ["count", "object"],
    },
    {"prompt": "a cat", "atom_count": 4, "vqa_list": [["Is there a cat?", "Yes"]], "skills": ["object"]},
]


@pytest.fixture
def geneval2(tmp_path):
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    return GenEval2(tmp_path / "data.jsonl")


def test_spellings():
    assert spellings("How many dogs?", "three") == ("three", "Three", " three", " Three", "3", " 3")
    assert spellings("Is there a dog?", "Yes") == ("Yes", "yes", " yes", " Yes")


def test_tokens_that_spellings_share_count_once_or_as_published_twice():
    # " three", " Three" and " 3" all begin with the token 220, a blank
    shared = First("3", ((1, 0.1), (2, 0.0), (220, 0.3), (220, 0.3), (5, 0.4), (220, 0.3)))
    assert shared.total() == pytest.approx(0.8) and shared.total(once=False) == pytest.approx(1.4)


def soft(text, level):
    if "How many" in text:
        return First("3", (("3", 0.25), (" 3", 0.0)))
    return First("Yes", ((7, 0.5), (8, 0.25), (7, 0.5)))


def test_the_geometric_mean_is_the_headline(geneval2, tmp_path):
    folder = drawn(geneval2, tmp_path / "out")
    judge = Judge(soft)
    score_folder(geneval2, folder, SoftTifa(judge), tmp_path / "s.jsonl")
    assert set(judge.asked) == {f"{q} Answer in one word." for row in ROWS for q, _ in row["vqa_list"]}
    found = report(geneval2, [tmp_path / "s.jsonl"], folder)
    # prompt 1: sqrt(0.25 * 0.75); prompt 2: 0.75
    assert found["headline"]["mean"] == pytest.approx((0.1875**0.5 + 0.75) / 2) and found["scale"] == 100
    arm = found["arms"]["round_1"]
    assert arm["groups"]["3 atoms"]["mean"] == pytest.approx(0.1875**0.5)
    assert arm["extras"]["Soft-TIFA AM"] == pytest.approx((0.5 + 0.75) / 2)
    assert arm["extras"]["skill object"] == pytest.approx(0.75) and arm["extras"]["TIFA"] == 1.0
    score_folder(geneval2, folder, SoftTifa(judge, original_sums=True), tmp_path / "o.jsonl")
    original = report(geneval2, [tmp_path / "o.jsonl"], folder)
    assert original["headline"]["mean"] == pytest.approx(((0.25 * 1.25) ** 0.5 + 1.25) / 2)  # above what can be


def test_a_zero_makes_the_geometric_mean_zero():
    assert geometric_mean([0.0, 1.0]) == 0 and geometric_mean([0.25, 1.0]) == pytest.approx(0.5)


def test_images_of_geneval2_by_a_mapping_that_stays_in_its_folder(geneval2, tmp_path):
    folder = tmp_path / "mine"
    save_png(folder / "x.png", grey(1))
    paths = {"three dogs": "x.png", "a cat": "../secret.png", "a cow": "x.png"}
    (folder / "image_paths.json").write_text(json.dumps(paths))
    found = geneval2.survey(folder)
    assert [shot.file for shot in found.shots] == ["x.png"]
    assert any("no image in the folder for 'a cat'" in line for line in found.complaints)
    assert any("'a cow'" in line and "none of the prompts" in line for line in found.complaints)


@pytest.mark.parametrize(
    "broken",
    [
        {"vqa_list": []},
        {"skills": ["a", "b"]},
        {"vqa_list": [["How many cats?", "many"]]},
        {"atom_count": "3"},
    ],
)
def test_broken_geneval2_data(broken, tmp_path):
    (tmp_path / "d.jsonl").write_text(json.dumps({**ROWS[1], **broken}))
    with pytest.raises(UserError, match="line 1"):
        GenEval2(tmp_path / "d.jsonl")


# ------------------------------------------------------------------------------------------- DPG


def q(number, *parents, broad="entity"):
    return Question(number, parents, f"q{number}?", broad)


def test_zeros_cascade_in_the_files_order():
    chain = [q(1, 0), q(2, 1), q(3, 2)]
    assert tile_score(chain, [0, 1, 1]) == 0  # 1 is no, so 2 becomes no, so 3 becomes no
    assert tile_score(chain, [1, 0, 1]) == pytest.approx(1 / 3)
    # 3 is looked at before its parent 2 has been set to 0, so it keeps its yes
    assert tile_score([q(3, 2), q(1, 0), q(2, 1)], [1, 0, 1]) == pytest.approx(1 / 3)
    with pytest.raises(KeyError):
        tile_score([q(2, 1)], [1])


HEAD = [
    *("item_id", "text", "keywords", "proposition_id", "dependency", "category_broad"),
    *("category_detailed", "tuple", "question_natural_language"),
]


@pytest.fixture
def dpg_data(tmp_path):
    folder = tmp_path / "dpg"
    (folder / "prompts").mkdir(parents=True)
    rows = [
        ["COCOval1", "t", "", "1", "0", "entity", "whole", "entity - whole (dog)", "Is there a dog?"],
        ["COCOval1", "t", "", "2", "1", "attribute", "color", "attribute - color (dog, red)", "Is the dog red?"],
        ["partiprompts2", "t", "", "1", "0", "entity", "whole", "entity - whole (cat)", "Is there a cat?"],
        ["partiprompts2", "t", "", "2", "0", "global", "", "global - (photo)", "Is it a photo?"],
    ]
    with (folder / "dpg_bench.csv").open("w", newline="") as file:
        csv.writer(file).writerows([HEAD, *rows])
    (folder / "prompts" / "COCOval1.txt").write_text("A red dog.\n")
    (folder / "prompts" / "partiprompts2.txt").write_text("A photo of a cat.\n")
    return folder


def test_grids_are_cut_into_tiles_in_the_order_of_reading(dpg_data, tmp_path):
    bench = Dpg(dpg_data)
    folder = drawn(bench, tmp_path / "out")
    judge = Judge(lambda text, level: "No." if "dog" in text and level % 2 else "yes")
    score_folder(bench, folder, DpgScorer(judge), tmp_path / "s.jsonl")
    found = report(bench, [tmp_path / "s.jsonl"], folder)
    # levels 0..3 are the dog's tiles: both questions yes on 0 and 2, "no" and hence 0 on 1 and 3; the cat is all yes
    assert found["headline"]["mean"] == pytest.approx((0.5 + 1) / 2)
    groups = found["arms"]["round_1"]["groups"]
    assert groups["COCOval"]["mean"] == pytest.approx(0.5) and groups["partiprompts"]["mean"] == 1
    assert found["arms"]["round_1"]["extras"]["attribute"] == pytest.approx(0.5)
    assert found["arms"]["round_1"]["counts"]["expected"] == 8


def test_the_official_quirks_lose_the_first_question(dpg_data, tmp_path):
    bench = Dpg(dpg_data, "table", official=True)
    assert [len(questions) for questions in read_questions(dpg_data / "dpg_bench.csv", True).values()] == [1, 2]
    folder = drawn(bench, tmp_path / "out")
    judge = Judge(lambda text, level: "no" if "photo" in text and level != 7 else "yes")
    tally = score_folder(bench, folder, DpgScorer(judge, official=True), tmp_path / "s.jsonl")
    assert tally.failed == 4  # the dog's second question depends on its first, which is gone: the image is left out
    with pytest.raises(UserError, match=r"4 of 8 images.*depends on question 1"):
        report(bench, [tmp_path / "s.jsonl"], folder)
    found = report(bench, [tmp_path / "s.jsonl"], folder, partial=True)
    assert found["title"] == "DPG-table (official quirks) (partial)"
    assert found["headline"]["mean"] == pytest.approx((0.5 * 3 + 1) / 4)
    assert found["arms"]["round_1"]["extras"]["global"] == 1.0  # of the last tile (level 7) alone; of all it is 1/4


def test_only_the_first_tile_may_count_and_other_files_are_told(dpg_data, tmp_path):
    bench = Dpg(dpg_data, tiles=1)
    folder = drawn(bench, tmp_path / "out") / "round_1"
    (folder / "notes.txt").write_text("x")
    found = bench.survey(folder)
    assert [(shot.file, shot.tile) for shot in found.shots] == [("COCOval1.png", 0), ("partiprompts2.png", 0)]
    assert found.complaints == ["notes.txt: not scored, since it is no image named after a prompt"]


def test_an_answer_that_is_neither_is_no_zero(dpg_data, tmp_path):
    bench = Dpg(dpg_data)
    folder = drawn(bench, tmp_path / "out")
    judge = Judge(lambda text, level: Abstained("timed out") if level == 2 else "maybe" if level == 5 else "yes")
    tally = score_folder(bench, folder, DpgScorer(judge), tmp_path / "s.jsonl")
    assert (tally.scored, tally.failed) == (6, 2)


# ------------------------------------------------------------------------------------------ WISE


@pytest.fixture
def wise_data(tmp_path):
    folder = tmp_path / "data_verified"
    folder.mkdir()
    files = {"cultural_common_sense": (1,), "spatio-temporal_reasoning": (401, 521), "natural_science": (641, 761, 881)}
    for name, numbers in files.items():
        rows = [
            {"Prompt": f"p{n}", "Explanation": f"e{n}", "Category": "c", "Subcategory": "s", "prompt_id": n}
            for n in numbers
        ]
        (folder / f"{name}_verified.json").write_text(json.dumps(rows))
    return folder


def test_wise_weighs_its_parts(wise_data, tmp_path):
    bench = Wise(wise_data)
    folder = drawn(bench, tmp_path / "out")
    judge = Judge(lambda text, level: "Because.\nScore: " + ("1" if "p1\n" in text or "p881" in text else "0"))
    score_folder(bench, folder, WiseScorer(judge), tmp_path / "s.jsonl")
    found = report(bench, [tmp_path / "s.jsonl"], folder)
    assert found["headline"]["mean"] == pytest.approx(0.40 + 0.12)
    assert list(found["arms"]["round_1"]["groups"]) == ["culture", "time", "space", "biology", "physics", "chemistry"]
    assert "Explanation: e401" in "".join(judge.asked) and "Prompt: p401" in "".join(judge.asked)


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("Score: 1", 1),
        ("**Score:** 0", 0),
        ("score = 1", 1),
        ("Reason: it has 1 dog\n0\n", 0),
        ("1", 1),
        ("Score: 0 would be harsh\nScore: 1", 1),
        ("Score: 10", None),
        ("Score: 0.5", None),
        ("It has 1 dog.", None),
        ("", None),
    ],
)
def test_scores_are_read_or_not(answer, score):
    assert read_score(answer) == score


def test_wise_asks_three_times_and_then_has_no_score(wise_data, tmp_path):
    bench, tries = Wise(wise_data), {}

    def says(text, level):
        tries[level] = tries.get(level, 0) + 1
        return "hmm" if level == 0 or tries[level] < 3 else "Score: 1"

    tally = score_folder(bench, drawn(bench, tmp_path / "out"), WiseScorer(Judge(says)), tmp_path / "s.jsonl")
    assert (tally.scored, tally.failed) == (5, 1) and set(tries.values()) == {3}


# ------------------------------------------------------------------------------------- UniGenBench


@pytest.fixture
def unigen_data(tmp_path):
    rows = [
        (0, {"Testpoints": ["Style", "Attribute - Color"], "Testpoint Description": ["ink", "red"]}),
        (1, {"Testpoints": ["Attribute - Color"], "Testpoint Description": ["blue"]}),
    ]
    path = tmp_path / "test_prompts_en.csv"
    with path.open("w", newline="") as file:
        lines = [["index", "prompt_en", "sub_dims_en"], *([n, f"prompt {n}", json.dumps(told)] for n, told in rows)]
        csv.writer(file).writerows(lines)
    return path


def test_unigenbench_is_the_share_of_test_points(unigen_data, tmp_path):
    bench = UniGenBench(unigen_data, "table")
    folder = drawn(bench, tmp_path / "out")
    assert (folder / "round_1" / "1_3.png").is_file()
    judge = Judge(lambda text, level: "Yes" if "blue" in text else "no" if "red" in text else "yes.")
    score_folder(bench, folder, UniGenScorer(judge), tmp_path / "s.jsonl")
    found = report(bench, [tmp_path / "s.jsonl"], folder)
    assert found["title"] == "UniGenBench++-table (test_prompts_en)"
    assert found["headline"]["mean"] == pytest.approx(8 / 12)  # not the mean over images, (0.5 + 1) / 2
    assert found["arms"]["round_1"]["groups"]["Attribute"]["mean"] == pytest.approx(0.5)
    assert found["arms"]["round_1"]["extras"]["mean of the dimensions"] == pytest.approx(0.75)


# ------------------------------------------------------------------------------------ the commands


def test_a_judge_behind_an_endpoint(dpg_data, tmp_path, capsys):
    bench = Dpg(dpg_data)
    folder = drawn(bench, tmp_path / "out")

    def reply(call):
        text = call.body["messages"][0]["content"][1]["text"]
        said = "<think>yes? no!</think>\nYes." if "dog" in text else "no"
        call.reply(json.dumps({"choices": [{"message": {"content": said}}]}))

    with Endpoint(reply) as server:
        arguments = {"url": server.url, "model": "judge-7b", "extra": {"seed": 3}}
        commands.score_judged("dpg", folder, data=dpg_data, **arguments)
        assert server.calls[0].body["seed"] == 3 and server.calls[0].body["temperature"] == 0
        before = len(server.calls)
        commands.score_judged("dpg", folder, data=dpg_data, **arguments)
        assert len(server.calls) == before  # nothing is asked twice
    commands.report("dpg", folder, data=dpg_data)
    assert "DPG-judge-7b: 50.00 [" in capsys.readouterr().out


def test_first_tokens_of_an_endpoint(geneval2, tmp_path):
    folder = drawn(geneval2, tmp_path / "out")

    def reply(call):
        call.probabilities(**{"Yes": 0.5, "yes": 0.25, "3": 0.125, "No": 0.1})

    with Endpoint(reply) as server:
        commands.score_judged("geneval2", folder, data=tmp_path / "data.jsonl", url=server.url, model="j")
    found = report(geneval2, [folder / "scores-geneval2.jsonl"], folder)
    assert found["arms"]["round_1"]["groups"]["4 atoms"]["mean"] == pytest.approx(0.75)
    assert found["arms"]["round_1"]["extras"]["skill count"] == pytest.approx(0.125)


def test_what_judges_cannot_be(dpg_data, tmp_path):
    with pytest.raises(UserError, match="name a judge"):
        commands.score_judged("dpg", tmp_path, data=dpg_data)
    with pytest.raises(UserError, match="--url needs --model"):
        commands.score_judged("dpg", tmp_path, data=dpg_data, url="http://localhost:1/v1")
    with pytest.raises(UserError, match="name the folder with dpg_bench"):
        commands.benchmark("dpg")
    for name in ("geneval2", "wise", "unigenbench", "compbench-color"):
        with pytest.raises(UserError, match="not shipped"):
            commands.benchmark(name)


def test_a_judge_in_this_process(dpg_data, tmp_path):
    """A random one: what it says is no answer, and that is what is told."""
    from tiny_vlm import save_vlm

    bench = Dpg(dpg_data)
    folder = drawn(bench, tmp_path / "out")
    commands.score_judged("dpg", folder, data=dpg_data, local=str(save_vlm(tmp_path / "vlm")))
    with pytest.raises(UserError, match="nothing was scored: neither yes nor no"):
        report(bench, [folder / "scores-dpg.jsonl"], folder)


def test_layouts_that_hold_a_fixed_number_of_images(dpg_data, wise_data, tmp_path):
    for bench in (Dpg(dpg_data), Wise(wise_data)):
        with pytest.raises(UserError, match=f"takes {bench.images} images a prompt"):
            draw(bench, tmp_path / "out", paint, DrawOptions(Settings(rounds=1), samples=2))
    assert not (tmp_path / "out").exists()


def test_shards_that_begin_together(dpg_data, tmp_path):
    """Another shard's run.json may just be on its way."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".run.4711.tmp.json").write_text("{")
    assert draw(Dpg(dpg_data), tmp_path / "out", paint, DrawOptions(Settings(rounds=1), shard=(1, 2))) == 1
