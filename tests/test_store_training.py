"""SFT and RL on a store: what its images carry is what they teach; LoRA, and adapters as models."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_formats import FORMATS, files, lines
from janus_r1.cli import main
from janus_r1.data.importing import import_data
from janus_r1.data.rows import Wanted
from janus_r1.data.store import Store
from janus_r1.data.store_rows import Index, StoreRows, read
from janus_r1.data.tasks import store_edits, store_tasks, tasks
from janus_r1.errors import UserError
from janus_r1.images import decode_image
from janus_r1.model.loading import load
from janus_r1.rewards.score import RewardRecipe
from janus_r1.segments import Drawn, Seen, Source
from janus_r1.train.loop import RunOptions
from janus_r1.train.lora import LoraRecipe
from janus_r1.train.objective import NextToken, targets
from janus_r1.train.rl import rl
from janus_r1.train.rl_recipe import RlRecipe
from janus_r1.train.sft import SftRecipe, sft

SEEN = np.zeros((1, 1, 3), np.uint8)  # of a source that is drawn from alone


def store(name: str, folder: Path) -> str:
    source = folder / f"{name} source"
    source.mkdir(parents=True)
    FORMATS[name](source)
    import_data(source, folder / name)
    return str(folder / name)


def rows_of(maker: StoreRows, seed: int = 0, **counts: int):
    wanted = Wanted(counts, seed, random.Random(0), judge_rounds=2, redraw_rounds=2, dropout=0.0)
    made = maker.begin(wanted).job()
    return maker.picks(wanted), maker.finish(made, wanted)


@pytest.mark.parametrize(
    ("name", "can"),
    [
        ("images_with_texts", {"draw"}),
        ("ultraedit", {"edit"}),
        ("reflections", {"draw", "judge", "redraw"}),
        ("janus_pro_r1", {"draw", "judge", "redraw"}),
        ("imagefolder_csv", set()),  # all scored 0.25: wrong, and nothing right
    ],
)
def test_a_store_teaches_what_it_carries(name, can, tiny, tmp_path):
    folder = store(name, tmp_path)
    assert {share for share, carried in Index(Store(folder)).carries().items() if carried} == can
    refused = next(share for share in ("edit", "judge", "draw") if share not in can)
    said = ", ".join(share for share in ("draw", "judge", "redraw", "edit") if share in can) or "none"
    with pytest.raises(UserError, match=f"cannot teach {refused}.*it can teach {said}: set shares"):
        StoreRows([folder], tiny, [refused])


def test_rows_are_made_of_the_right_images(tiny, tmp_path):
    maker = StoreRows([store("janus_pro_r1", tmp_path)], tiny, ["draw", "judge", "redraw"], word_weight=0.5)
    picks, rows = rows_of(maker, draw=20, judge=20, redraw=20)
    records = [[maker.store[row] for row in pick.rows] for pick in picks]
    for pick, own in zip(picks, records, strict=True):
        assert len({record.prompt for record in own}) == 1
        assert all(record.score < 0.5 for record in own[:-1])
        if pick.share != "judge":
            assert own[-1].score >= 0.8
    assert sum(own[-1].score > 0.5 for pick, own in zip(picks, records, strict=True) if pick.share == "judge") == 10
    assert len(rows.images) == 40 and len(rows.verdicts) == 20
    drawn = [[part.ids for part in row if isinstance(part, Drawn)] for row in rows.images[20:]]
    for pick, ids in zip(picks[40:], drawn, strict=True):
        assert [tuple(one) for one in ids] == [maker.codes.image(row) for row in pick.rows]
    seen = [part for part in rows.verdicts[0] if isinstance(part, Seen)]
    assert len(seen) == len(picks[20].rows) and seen[-1].pixels.shape == (tiny.image_size, tiny.image_size, 3)


def test_rows_follow_from_the_seed_alone(tiny, tmp_path):
    folder = store("janus_pro_r1", tmp_path)
    first, second = (StoreRows([folder], tiny, ["draw", "judge"]) for _ in range(2))
    assert rows_of(first, 7, draw=5, judge=5)[0] == rows_of(second, 7, draw=5, judge=5)[0]
    assert rows_of(first, 8, draw=5, judge=5)[0] != rows_of(second, 7, draw=5, judge=5)[0]


def test_a_repair_follows_the_image_that_it_mends(tiny, tmp_path):
    maker = StoreRows([store("reflections", tmp_path)], tiny, ["redraw"])
    picks, _ = rows_of(maker, redraw=20)
    for pick in picks:
        *_, rejected, target = (maker.store[row] for row in pick.rows)
        assert target.repair_of == rejected.id and rejected.reason == "No, the cat is blue"
        assert len(pick.rows) <= 3 and len(set(pick.rows)) == len(pick.rows)


def test_in_the_format_repair_a_look_lists_claims_and_a_redraw_is_an_edit(tiny, tmp_path):
    tiny.format = "repair"
    source = tmp_path / "s"
    wrong, right, *_ = files(source)
    claims = [{"text": "a red ring", "mark": False}, {"text": "one ring", "mark": True}]
    rows = [
        {
            "id": "w",
            "prompt": "a red ring",
            "image": wrong,
            "score": 0,
            "reason": "No, make the ring red.",
            "claims": claims,
        },
        {"id": "r", "prompt": "a red ring", "image": right, "score": 1, "reason": "Yes.", "repair_of": "w"},
    ]
    lines(source / "r.jsonl", rows)
    import_data(source, tmp_path / "store")
    maker = StoreRows([str(tmp_path / "store")], tiny, ["judge", "redraw"])
    picks, made = rows_of(maker, judge=2, redraw=1)
    said = [tiny.tokenizer.decode(targets([row]).text_ids.tolist()) for row in made.verdicts]
    assert said[1] == " a red ring No, one ring Yes\nNo, make the ring red.<｜end▁of▁sentence｜>"
    assert said[0] == "\nYes.<｜end▁of▁sentence｜>"  # nothing is claimed of it
    (redraw,) = made.images
    assert [part.ids for part in redraw if isinstance(part, Drawn)] == [maker.codes.image(row) for row in picks[2].rows]
    assert redraw == tiny.layout.draw(
        "make the ring red", maker.codes.image(1), False, Source(maker.codes.image(0), SEEN)
    )


def test_an_image_that_nothing_mends_is_repaired_to_the_right_one_most_like_it(tiny, tmp_path):
    tiny.format = "repair"
    source = tmp_path / "s"
    source.mkdir()
    shades = {"wrong": 200, "far": 20, "near": 190, "elsewhere": 200}
    for name, shade in shades.items():
        Image.fromarray(np.full((64, 64, 3), shade, np.uint8)).save(source / f"{name}.png")
    scored = [("wrong", "a wall", 0.1), ("far", "a wall", 1.0), ("near", "a wall", 1.0), ("elsewhere", "a sky", 1.0)]
    lines(source / "r.jsonl", [{"prompt": p, "image": f"{n}.png", "score": score} for n, p, score in scored])
    import_data(source, tmp_path / "store")
    maker = StoreRows([str(tmp_path / "store")], tiny, ["redraw"])
    picks, _ = rows_of(maker, redraw=8)
    shown = [[float(decode_image(maker.store[row].image, "").mean()) for row in pick.rows] for pick in picks]
    assert shown == [[200.0, 190.0]] * 8
    assert maker.features is not None and len(list((tmp_path / "store" / "features").rglob("*.npy"))) == 1


def test_every_prompt_is_as_likely_whatever_it_has(tiny, tmp_path):
    names = files(tmp_path / "s")
    lines(
        tmp_path / "s" / "r.jsonl",
        [{"prompt": "often", "image": n} for n in names[:5]] + [{"prompt": "once", "image": names[5]}],
    )
    import_data(tmp_path / "s", tmp_path / "store")
    index, rng = Index(Store(tmp_path / "store")), random.Random(0)
    counts = Counter(index.good.pick(rng) == 5 for _ in range(400))
    assert 150 < counts[True] < 250


def test_edits_and_several_stores(tiny, tmp_path):
    folders = [store("ultraedit", tmp_path), store("images_with_texts", tmp_path)]
    maker = StoreRows(folders, tiny, ["draw", "edit"])
    picks, rows = rows_of(maker, draw=3, edit=3)
    assert len(rows.images) == 6
    edited = rows.images[3:]
    for pick, row in zip(picks[3:], edited, strict=True):
        drawn = [tuple(part.ids) for part in row if isinstance(part, Drawn)]
        assert drawn == [maker.codes.source(pick.rows[0]), maker.codes.image(pick.rows[0])]


def test_a_worker_reads_what_a_step_wants(tiny, tmp_path):
    maker = StoreRows([store("janus_pro_r1", tmp_path)], tiny, ["judge"])
    picks, _ = rows_of(maker, judge=2)
    made = read(maker.folders, picks, tiny.image_size)
    assert [part.prompt for part in made[0]] == [maker.store[row].prompt for row in picks[0].rows]
    assert made[1][-1].reason.startswith("No")


def test_a_process_makes_its_own_rows_alone(tiny, tmp_path):
    folder, counts = store("janus_pro_r1", tmp_path), {"draw": 3, "judge": 5, "redraw": 4}
    whole = StoreRows([folder], tiny, [*counts])
    wanted = Wanted(counts, 3, random.Random(0), judge_rounds=2, redraw_rounds=2, dropout=0.0)
    made = whole.begin(wanted).job()
    every = whole.finish(made, wanted)
    for here in range(2):
        maker = StoreRows([folder], tiny, [*counts], part=(here, 2))
        job = maker.begin(wanted).job
        read_here = job()
        assert sum(map(bool, read_here)) == {0: 4 + 3, 1: 3 + 2}[here]  # of 7 images and 5 verdicts
        own = maker.finish(read_here, wanted)
        for kind, all_of_kind in zip(own, every, strict=True):
            assert len(kind) == len(all_of_kind)
            assert [str(row) for row in kind[here::2]] == [str(row) for row in all_of_kind[here::2]]
            assert [row.labels for row in kind] == [row.labels for row in all_of_kind]
            assert not any(kind[1 - here :: 2])


# ---------------------------------------------------------------------------------------- training


def test_rows_tell_their_share_and_family(tiny, tmp_path):
    names = files(tmp_path / "s")
    rows = [{"prompt": f"p{n}", "image": name, "tag": "counting" if n else None} for n, name in enumerate(names)]
    lines(tmp_path / "s" / "r.jsonl", rows)
    import_data(tmp_path / "s", tmp_path / "store")
    _, made = rows_of(StoreRows([str(tmp_path / "store")], tiny, ["draw"]), draw=30)
    assert {row.labels for row in made.images} == {("draw",), ("draw", "draw/counting")}


def test_each_rows_own_loss(tiny, tmp_path):
    maker = StoreRows([store("reflections", tmp_path)], tiny, ["draw", "judge", "redraw"], word_weight=0.5)
    _, made = rows_of(maker, draw=2, judge=2, redraw=2)
    for rows, part in ((made.images, 0), (made.verdicts, 1)):
        own: list[float] = []
        NextToken(tiny)(rows, own)
        alone = [NextToken(tiny)([row])[part].item() for row in rows]
        assert own == pytest.approx(alone, rel=1e-4)


@pytest.fixture
def trained(tiny_folder, tmp_path) -> Path:
    data = [store("reflections", tmp_path), store("ultraedit", tmp_path)]
    shares = {"draw": 0.25, "judge": 0.25, "redraw": 0.25, "edit": 0.25}
    run = RunOptions(out=str(tmp_path / "sft"), steps=2)
    recipe = SftRecipe(run, str(tiny_folder), data=data, shares=shares, rows=8, lr=1e-2, lora=LoraRecipe(rank=2))
    return sft(recipe).parent


def test_sft_with_lora_and_its_adapter_as_a_model(trained, tiny_folder):
    losses = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(row["image_loss"]) and np.isfinite(row["verdict_loss"]) for row in losses)
    shares = ("draw", "redraw", "edit")  # as many rows of each, of as many tokens
    for row in losses:
        assert row["image_loss"] == pytest.approx(np.mean([row[f"loss/{share}"] for share in shares]), rel=1e-3)
        assert row["loss/judge"] > 0
    base, merged, adapted = (load(str(path)) for path in (tiny_folder, trained / "model", trained / "adapter"))
    changed = 0
    for (name, one), other, before in zip(
        merged.named_parameters(), adapted.parameters(), base.parameters(), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-2, rtol=1e-2), name
        changed += not torch.equal(other, before)
    assert changed == 7 * 2  # seven matrices of two layers, and nothing else


def test_convert_writes_base_and_adapter_as_one(trained, tmp_path):
    assert main(["convert", str(trained / "adapter"), str(tmp_path / "one")]) == 0
    assert not (tmp_path / "one" / "adapter_config.json").exists()
    one, adapted = load(str(tmp_path / "one")), load(str(trained / "adapter"))
    for (name, weight), other in zip(one.named_parameters(), adapted.parameters(), strict=True):
        assert torch.equal(weight, other), name


def test_what_is_wrong_with_an_adapter_is_one_line(trained, tmp_path):
    config = trained / "adapter" / "adapter_config.json"
    plain = json.loads(config.read_text())
    for base, said in (
        (None, "does not name its base"),
        ("/nowhere/at/all", "which is not here"),
        ("tiny-base", "does not fit its base"),
        (str(trained / "adapter"), "adapter of itself"),
    ):
        config.write_text(json.dumps({**plain, "base_model_name_or_path": base}))
        with pytest.raises(UserError, match=said):
            load(str(trained / "adapter"))


def test_rl_on_the_prompts_of_a_store_with_a_reward_of_ones_own(tiny_folder, tmp_path):
    (tmp_path / "mine.py").write_text(
        "def score(prompts, images, state, **more):\n"
        "    assert set(state) <= {0, 4}\n"
        "    return [{'red': image.getpixel((0, 0))[0] / 255, 'there': 1.0} for image in images]\n"
    )
    recipe = RlRecipe(
        RunOptions(out=str(tmp_path / "rl"), steps=2),
        str(tiny_folder),
        prompts=store("janus_pro_r1", tmp_path),
        rewards=[RewardRecipe("python", path=f"{tmp_path}/mine.py:score")],
        prompts_per_step=2,
        group=2,
        rounds=1,
        max_reason_tokens=2,
        eval_every=0,
        eval_prompts=1,
    )
    assert (rl(recipe) / "config.json").exists()
    rows = [json.loads(line) for line in (tmp_path / "rl" / "metrics.jsonl").read_text().splitlines()]
    assert 0 < rows[0]["reward_draw"] < 1 and rows[0]["abstained"] == 0
    assert 0.5 <= rows[0]["claims_first"] == rows[0]["claims_final"] <= 1


def test_tasks_of_a_store(tmp_path):
    drawn, edits = store("janus_pro_r1", tmp_path), store("ultraedit", tmp_path)
    assert [task.prompt for task in store_tasks([drawn])] == [f"cat {i}" for i in range(6)]
    stream = tasks("both", drawn, edits, held_out=2)
    assert len(stream.held_out) == 2 and {task.source is None for task in stream.step(8, 0, 0)} == {True, False}
    assert len(store_edits(edits)) == 6
    with pytest.raises(UserError, match="holds no edits"):
        store_edits(drawn)
