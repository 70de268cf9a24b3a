"""Plain questions: answers against a slow and obviously right path, the world's set, and the harness's interface."""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from janus_r1 import JanusR1
from janus_r1.ask import ask, check
from janus_r1.cli import main
from janus_r1.errors import UserError
from janus_r1.eval import understanding
from janus_r1.eval.understanding import UnderstandingOptions, evaluate_understanding
from janus_r1.segments import Text

FEW = UnderstandingOptions(questions=30, descriptions=6, checklists=5, max_batch=7)


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(3)]


def last_logits(model, row) -> torch.Tensor:
    with torch.no_grad():
        return model.text_logits(model.hidden(model.embed_rows([row]))[:, -1])[0]


def test_answers_are_the_greedy_ones(tiny, pictures):
    questions = ["What is this?", "How many objects are there, and where are they?", "Why?"]
    said = ask(tiny, pictures, questions, max_tokens=4, max_batch=2)
    for image, question, answer in zip(pictures, questions, said, strict=True):
        *row, _ = tiny.layout.question(image, question, "")
        ids: list[int] = []
        for _ in range(4):
            ids.append(int(last_logits(tiny, (*row, *([Text(tuple(ids))] if ids else []))).argmax()))
            if ids[-1] == tiny.layout.special.eos:
                break
        assert answer == tiny.tokenizer.decode(ids, skip_special_tokens=True).strip()


def test_items_are_asked_one_after_the_other(tiny, pictures):
    items = [["red", "small circle", "blue"], ["ring"], ["a", "b"]]
    found = check(tiny, pictures, ["Which are there?"] * 3, items, max_batch=2)
    assert [len(own) for own in found] == [3, 1, 2]
    special = tiny.layout.special
    for image, own, p_yes in zip(pictures, items, found, strict=True):
        *row, _ = tiny.layout.question(image, "Which are there?", "")
        for item, p in zip(own, p_yes, strict=True):
            row.append(Text(tuple(tiny.tokenizer.encode(f" {item}", add_special_tokens=False))))
            yes = last_logits(tiny, tuple(row))[[special.yes, special.no]].softmax(-1)[0]
            assert p == pytest.approx(float(yes), abs=1e-4)
            row.append(Text((special.yes if p >= 0.5 else special.no,)))


def test_right_and_wrong_answers_count(tiny, monkeypatch):
    truth = {}
    for one in understanding._sights(FEW, 30) + understanding._sights(FEW, 6, describe=1.0):
        truth[one.image.tobytes(), one.question] = one.answer
    assert len(truth) == 36

    def oracle(model, images, questions, max_batch):
        answers = [truth[image.tobytes(), text] for image, text in zip(images, questions, strict=True)]
        return [f" {a.upper()}. " if q.startswith("How many") else a for a, q in zip(answers, questions, strict=True)]

    monkeypatch.setattr("janus_r1.ask.ask", oracle)
    found = evaluate_understanding(tiny, FEW)
    assert found["overall"]["mean"] == 1 and found["wrong"] == []
    assert {"Describe the", "How many", "Does this"} <= set(found["kinds"])
    assert found["kinds"]["Describe the"]["n"] == 6
    monkeypatch.setattr("janus_r1.ask.ask", lambda model, images, questions, max_batch: ["no idea"] * len(images))
    wrong = evaluate_understanding(tiny, FEW)
    assert wrong["overall"]["mean"] == 0 and wrong["wrong"][0]["said"] == "no idea"
    assert found["checklists"] == wrong["checklists"] and 0 < found["checklists"]["base_rate"]["mean"] < 1


def test_the_command(tiny_folder, tmp_path, capsys):
    argv = ["eval", "understanding", "--model", str(tiny_folder), "--questions", "8", "--descriptions", "2"]
    assert main([*argv, "--checklists", "2", "--out", str(tmp_path / "u.json"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == json.loads((tmp_path / "u.json").read_text()) and result["run"]["questions"] == 8
    assert main([*argv, "--checklists", "0", "--questions", "0", "--descriptions", "0"]) == 2
    assert "at least" in capsys.readouterr().err


# ------------------------------------------------------------------------------------ the harness


@pytest.fixture
def lmms(monkeypatch):
    """The adapter, on lmms-eval or on a stand-in of what it takes from it."""
    try:
        import lmms_eval.api.model  # noqa: F401
    except ImportError:

        class Base:
            def __init__(self):
                self.task_dict = {}

        names = (
            "lmms_eval",
            "lmms_eval.api",
            "lmms_eval.api.model",
            "lmms_eval.models",
            "lmms_eval.models.registry_v2",
        )
        for name in names:
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        sys.modules["lmms_eval.api.model"].lmms = Base
        sys.modules["lmms_eval.models.registry_v2"].ModelManifest = SimpleNamespace
        monkeypatch.delitem(sys.modules, "janus_r1.eval.lmms", raising=False)
    from janus_r1.eval import lmms as adapter

    yield adapter
    sys.modules.pop("janus_r1.eval.lmms", None)


def test_the_harness_asks_through_its_own_interface(lmms, tiny, pictures):
    asked = []

    class Answering(JanusR1):
        def ask(self, images, questions, *, max_tokens, max_batch=64):
            asked.append((list(questions), max_tokens))
            return [f"{image.size[0]} wide\n\nmore" for image in images]

    adapter = lmms.Lmms(Answering(tiny), batch_size="2")
    adapter.task_dict["mme"] = {"test": [{"image": Image.fromarray(p)} for p in pictures]}

    def request(number, context, **options):
        args = (context, options, lambda doc: [doc["image"]] * doc.get("times", 1), number, "mme", "test")
        return SimpleNamespace(args=args)

    requests = [
        request(0, "<image>\nIs it red?", until=["\n\n"]),
        request(1, "Why?", max_new_tokens=5),
        request(2, "?"),
    ]
    assert adapter.generate_until(requests) == ["64 wide", "64 wide\n\nmore", "64 wide\n\nmore"]
    assert asked == [(["Is it red?", "Why?"], lmms.LONGEST), (["?"], lmms.LONGEST)]
    adapter.task_dict["mme"]["test"][0]["times"] = 2
    with pytest.raises(ValueError, match="document 0: 2 pictures"):
        adapter.generate_until(requests)
    with pytest.raises(NotImplementedError, match="generative"):
        adapter.loglikelihood(requests)
    with pytest.raises(ValueError, match="unknown model_args: pretraind"):
        lmms.Lmms(Answering(tiny), pretraind="x")
    assert lmms.manifest().simple_class_path == "janus_r1.eval.lmms.Lmms"


TASK = """
task: widths
dataset_path: parquet
dataset_kwargs: {data_files: {test: FOLDER/rows.parquet}}
test_split: test
output_type: generate_until
doc_to_visual: !function mine.visual
doc_to_text: !function mine.text
doc_to_target: answer
generation_kwargs: {max_new_tokens: 8}
process_results: !function mine.results
metric_list: [{metric: right, aggregation: mean, higher_is_better: true}]
metadata: [{version: 0.0}]
"""
MINE = """
def visual(doc):
    return [doc["image"].convert("RGB")]


def text(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]


def results(doc, results):
    return {"right": float(results[0].strip() == doc["answer"])}
"""


def test_a_whole_task_runs_in_the_harness(tiny, pictures, tmp_path, monkeypatch):
    """Its own evaluator on local data, from the task's YAML to its figures; where lmms-eval is installed."""
    pytest.importorskip("lmms_eval.evaluator")
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    from janus_r1.eval import understanding

    rows = {
        "image": [Image.fromarray(picture) for picture in pictures],
        "question": [f"How wide is picture {number}?" for number in range(len(pictures))],
        "answer": ["64"] * (len(pictures) - 1) + ["65"],
    }
    kinds = {"image": datasets.Image(), "question": datasets.Value("string"), "answer": datasets.Value("string")}
    datasets.Dataset.from_dict(rows, datasets.Features(kinds)).to_parquet(str(tmp_path / "rows.parquet"))
    (tmp_path / "widths.yaml").write_text(TASK.replace("FOLDER", str(tmp_path)))
    (tmp_path / "mine.py").write_text(MINE)

    class Answering(JanusR1):
        def ask(self, images, questions, *, max_tokens, max_batch=64):
            assert max_tokens == 8 and all(text.startswith("How wide is picture") for text in questions)
            return [str(image.size[0]) for image in images]

    found = understanding.evaluate_tasks(lambda: Answering(tiny), ["widths"], folder=str(tmp_path))
    right = (len(pictures) - 1) / len(pictures)
    assert found["tasks"]["widths"]["right,none"] == pytest.approx(right) and "lmms-eval" in found["harness"]
    with pytest.raises(UserError, match="has no task heights"):
        understanding.evaluate_tasks(lambda: pytest.fail("a model was loaded"), ["heights"], folder=str(tmp_path))


def test_the_harness_is_named_where_it_is_missing(monkeypatch, tmp_path):
    from janus_r1.eval import understanding

    monkeypatch.setattr(understanding, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install lmms-eval"):
        understanding.evaluate_tasks(lambda: pytest.fail("a model was loaded"), ["mme"])
    monkeypatch.setattr(understanding, "find_spec", lambda name: name)
    with pytest.raises(UserError, match="no such folder of tasks"):
        understanding.evaluate_tasks(lambda: pytest.fail("a model was loaded"), ["mme"], folder=str(tmp_path / "none"))
