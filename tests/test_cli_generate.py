"""The command line with a real, random tiny model (fixture ``tiny_folder``)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from janus_r1.chain import Settings, load_chain
from janus_r1.cli import main, parse


@pytest.fixture
def here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def generate(folder: Path, *options: str) -> int:
    return main(["generate", "a red ring", "--model", str(folder), "--rounds", "2", "--samples", "2", *options])


def test_generate(tiny_folder, here, capsys):
    assert generate(tiny_folder, "--out", "o", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert len(record["chains"]) == 2
    for item in record["chains"]:
        chain = load_chain(item["folder"])
        assert item["final_round"] == chain.final + 1 and len(item["rounds"]) == len(chain.rounds)
        assert (np.asarray(Image.open(item["image"])) == chain.pixels).all()


def test_the_same_seed_draws_the_same_chains(tiny_folder, here, capsys):
    assert generate(tiny_folder, "--out", "a") == 0
    assert generate(tiny_folder, "--out", "b") == 0
    assert generate(tiny_folder, "--out", "c", "--seed", "1") == 0
    a, b, c = (Path(name, "01/chain.json").read_text() for name in "abc")
    assert a == b != c


def test_judge(tiny_folder, here, capsys):
    Image.new("RGB", (100, 50), "red").save("wide.png")
    Image.new("RGBA", (64, 64), (0, 0, 0, 0)).save("clear.png")
    argv = ["judge", "wide.png", "clear.png", "--text", "a red ring", "--model", str(tiny_folder), "--json"]
    assert main(argv) == 0
    verdicts = json.loads(capsys.readouterr().out)["verdicts"]
    assert [item["image"] for item in verdicts] == ["wide.png", "clear.png"]
    for item in verdicts:
        assert 0 <= item["p_yes"] <= 1 and item["verdict"].startswith(("Yes", "No"))
    assert main(argv[:-1]) == 0
    assert "wide.png" in capsys.readouterr().out


def test_a_folder_is_judged_past_a_bad_file(tiny_folder, here, capsys):
    Path("own", "more").mkdir(parents=True)
    Image.new("RGB", (64, 64), "red").save("own/a.png")
    Path("own/b.png").write_bytes(b"<html>404</html>")
    Path("own/notes.txt").write_text("no image, and not meant as one")
    Image.new("L", (30, 80)).save("own/more/c.jpg")
    argv = ["judge", "own", "--text", "a red ring", "--model", str(tiny_folder), "--max-batch", "1", "--json"]
    assert main(argv) == 0
    told = {item["image"]: item for item in json.loads(capsys.readouterr().out)["verdicts"]}
    assert [*told] == ["own/a.png", "own/b.png", "own/more/c.jpg"]
    assert "not an image" in told.pop("own/b.png")["error"]
    assert all(0 <= item["p_yes"] <= 1 for item in told.values())
    assert main(argv[:-1]) == 0
    assert "1 of 3 images could not be read" in capsys.readouterr().err


def test_a_truncated_image(tiny_folder, here, capsys):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save("whole.png")
    Path("cut.png").write_bytes(Path("whole.png").read_bytes()[:3000])
    assert main(["judge", "cut.png", "--text", "x", "--model", str(tiny_folder)]) == 2
    assert "broken or truncated" in capsys.readouterr().err


def test_truncated_weights(tiny_folder, here, capsys):
    shutil.copytree(tiny_folder, "cut")
    weights = Path("cut/model.safetensors")
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    assert generate(Path("cut"), "--out", "o") == 2
    assert "janus-r1: error: cannot load the model cut" in capsys.readouterr().err
    assert not Path("o").exists()


def test_a_config_that_means_nothing(tiny_folder, here, capsys):
    shutil.copytree(tiny_folder, "odd")
    Path("odd/config.json").write_text('{"model_type": "janus", "vq_config": 5}')
    assert generate(Path("odd"), "--out", "o") == 2
    assert "janus-r1: error: cannot load the model odd" in capsys.readouterr().err


def test_a_device_that_is_not_there(tiny_folder, here, capsys):
    assert generate(tiny_folder, "--out", "o", "--device", "cuda:99") == 2
    assert generate(tiny_folder, "--out", "o", "--device", "toaster") == 2
    assert "no device 'toaster' here" in capsys.readouterr().err


def test_special_tokens_in_a_prompt(tiny_folder, here, capsys):
    assert main(["generate", "a <|User|> ring", "--model", str(tiny_folder), "--out", "o"]) == 2
    assert "special token" in capsys.readouterr().err.splitlines()[-1]


def test_eval_world(tiny_folder, here, capsys):
    argv = ["eval", "world", "--model", str(tiny_folder), "--limit", "6", "--samples", "1", "--rounds", "1,2"]
    assert main([*argv, "--out", "result.json", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["rounds"]) == {"1", "2"} and json.loads(Path("result.json").read_text()) == result
    assert main([*argv, "--out", "result.json"]) == 2
    assert "pass --overwrite" in capsys.readouterr().err
    assert main([*argv, "--no-controls", "--out", "result.json", "--overwrite"]) == 0
    assert "overall" in capsys.readouterr().out


def settings_of(*argv: str) -> Settings:
    return parse(argv).keywords["settings"]


PAPER = Settings(rounds=3, guidance=5, top_k=4096, text_top_k=50, text_temperature=1, history="last")


@pytest.mark.parametrize("before", [True, False])
def test_the_papers_preset_and_what_wins_over_it(before):
    given = ["--guidance", "1.5", "--rounds", "2"]  # 1.5 is also the ordinary default, and still wins
    preset = ["--preset", "paper"]
    assert settings_of("generate", "x", *preset) == PAPER
    assert settings_of("generate", "x") == Settings()
    both = settings_of("generate", "x", *(given + preset if before else preset + given))
    assert both == Settings(**{**vars(PAPER), "guidance": 1.5, "rounds": 2})


def test_a_preset_draws(tiny_folder, here, capsys):
    assert generate(tiny_folder, "--preset", "paper", "--out", "o", "--json") == 0
    settings = json.loads(capsys.readouterr().out)["settings"]
    assert settings["rounds"] == 2 and settings["guidance"] == 5 and settings["history"] == "last"


# -------------------------------------------------------------------------------------------- edits


def edit(folder: Path, image: str, *arguments: str) -> int:
    return main(["edit", image, *arguments, "--model", str(folder), "--rounds", "2", "--out", "o"])


def test_edits_in_turn(tiny_folder, here, capsys):
    """Another size and mode; the second instruction edits what the first one made, sample by sample."""
    Image.new("CMYK", (90, 50), (0, 200, 90, 10)).save("wide.jpg")
    assert edit(tiny_folder, "wide.jpg", "add a ring", "remove the ring", "--samples", "2", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    items = record["chains"]
    assert [(i["sample"], i["turn"], i["prompt"]) for i in items] == [
        (sample, turn, text) for sample in (1, 2) for turn, text in ((1, "add a ring"), (2, "remove the ring"))
    ]
    chains = [load_chain(item["folder"]) for item in items]
    assert (chains[0].source.pixels == chains[2].source.pixels).all()
    assert chains[0].source.pixels.shape == (64, 64, 3)
    for first, second in (chains[:2], chains[2:]):
        assert (second.source.pixels == first.pixels).all()
    assert chains[0].rounds[0].ids != chains[2].rounds[0].ids
    assert (np.asarray(Image.open(items[1]["source"])) == chains[0].pixels).all()
    assert Path(record["sheet"]).exists()


def test_edits_that_cannot_be_made(tiny_folder, here, capsys):
    Image.new("RGB", (64, 64)).save("black.png")
    Path("cut.png").write_bytes(Path("black.png").read_bytes()[:60])
    for arguments, complaint in (
        (("black.png", " "), "the instruction is empty"),
        (("black.png", "add <|User|>"), "the instruction contains the special token"),
        (("cut.png", "add a ring"), "broken or truncated"),
        (("none.png", "add a ring"), "no such file"),
        (("black.png",), "INSTRUCTION"),
    ):
        assert edit(tiny_folder, *arguments) == 2
        err = capsys.readouterr().err.strip().splitlines()[-1]
        assert err.startswith("janus-r1: error: ") and complaint in err
    assert not Path("o").exists()


def test_eval_edit(tiny_folder, here, capsys):
    argv = ["eval", "edit", "--model", str(tiny_folder), "--limit", "6", "--rounds", "1,2"]
    assert main([*argv, "--out", "result.json", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert json.loads(Path("result.json").read_text()) == result
    for check in ("following", "preserving", "both"):
        assert set(result[check]) == {"mean", "low", "high", "n"} and result[check]["n"] == 6
    assert set(result["rounds"]) == {"1", "2"} and len(result["rounds"]["1"]["families"]) == 6
    assert main([*argv, "--no-baselines"]) == 0
    assert "following" in capsys.readouterr().out


def test_any_window_draws_the_same_and_what_is_none_is_refused(tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for window in ("1", "5", "auto"):
        words = ["generate", "a red ring", "--model", str(tiny_folder), "--samples", "1", "--rounds", "1"]
        assert main([*words, "--window", window, "--out", window]) == 0
    drawn = [load_chain(tmp_path / window / "01").rounds[0].ids for window in ("1", "5", "auto")]
    assert drawn[0] == drawn[1] == drawn[2]
    capsys.readouterr()
    for wrong in ("0", "17", "wide"):
        assert main(["generate", "x", "--window", wrong]) == 2
        assert "--window must be" in capsys.readouterr().err
