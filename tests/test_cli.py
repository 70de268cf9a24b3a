"""The command line without a model: help, bad input, files, JSON. A stand-in model draws grey."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from janus_r1.__main__ import run
from janus_r1.chain import EDIT_TEMPERATURE, Chain, Round, Settings, Verdict, load_chain
from janus_r1.cli import COMMANDS, GROUPS, main, parse
from janus_r1.files import locked


class StandIn:
    """Says No to first drafts and Yes to second ones."""

    def generate(self, prompts, *, samples, max_batch, window, on_progress, **settings):
        def round_(accepted: bool) -> Round:
            text = "Yes, the image matches the prompt." if accepted else "No, the ring is [red], not blue."
            return Round(
                (1,) * 64, np.full((64, 64, 3), 90, np.uint8), Verdict(accepted, text, 0.9 if accepted else 0.2)
            )

        rows = [prompt for prompt in prompts for _ in range(samples)]
        on_progress(len(rows))
        rounds = (round_(False), round_(True))
        return [Chain(prompt, rounds, 1, Settings(**settings), row) for row, prompt in enumerate(rows)]


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """``generate`` with the stand-in; the working folder is empty."""
    from janus_r1.commands import draw

    monkeypatch.setattr(draw, "load_model", lambda *_: StandIn())
    monkeypatch.setattr(draw, "warn_of_words", lambda *_: None)
    monkeypatch.chdir(tmp_path)


def error_of(capsys, *argv: str) -> str:
    """The one line a refused command leaves."""
    assert main(list(argv)) == 2
    out, err = capsys.readouterr()
    last = err.strip().splitlines()[-1]
    assert out == "" and last.startswith("janus-r1: error: ") and "Traceback" not in err
    return last


# -------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize("command", [*COMMANDS, *GROUPS])
def test_help_teaches_without_torch_and_at_once(command):
    code = "import sys; from janus_r1.cli import main\n"
    code += "try: main(sys.argv[1:])\n"
    code += "except SystemExit as end: assert end.code == 0\n"
    code += "loaded = {'torch', 'transformers', 'numpy', 'PIL', 'rich', 'yaml'} & set(sys.modules)\n"
    code += "assert not loaded, loaded"
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, *command.split(), "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: janus-r1 {command}".strip()) and "Traceback" not in done.stderr
    assert time.monotonic() - began < 5, "0.1 s on an idle machine"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained(command):
    """By its function's docstring, or by its field's."""
    declared = COMMANDS[command].declared()
    assert declared.summary.endswith(".") and len(declared.summary) < 110
    unexplained = [option.name for option in declared.options if not option.doc]
    assert not unexplained


def test_defaults_are_those_of_settings():
    for command in (["generate", "x"], ["eval", "world"]):
        assert parse(command).keywords["settings"] == Settings()


def test_edits_are_drawn_cooler_by_default():
    for command in (["edit", "a.png", "x"], ["eval", "edit"]):
        assert parse(command).keywords["settings"].temperature == EDIT_TEMPERATURE


def test_values_reach_the_function_with_their_types():
    call = parse(["generate", "a", "--samples", "2", "b", "--top-p=0.5", "--no-early-stop", "--file", "7", "--json"])
    given = call.keywords
    assert (
        given["prompts"] == ("a", "b") and given["samples"] == 2 and given["file"] == "7" and given["to"].json is True
    )
    assert given["settings"] == Settings(top_p=0.5, early_stop=False)
    call = parse(["judge", "a.png", "b.png", "--text", "one, two", "--text", "null", "--max-batch", "auto"])
    assert call.keywords["text"] == ["one, two", "null"] and call.keywords["max_batch"] == "auto"
    assert parse(["eval", "world", "--rounds", "1,3"]).keywords["asked"].rounds == (1, 3)
    assert parse(["eval", "geneval", "draw", "out"]).keywords["name"] == "geneval"


def test_a_default_of_zero_and_the_bounds_are_shown(capsys):
    with pytest.raises(SystemExit):
        main(["generate", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "(default: 0)" in shown and "(default: 0.0; >= 0)" in shown and "--max-batch N|auto" in shown


# --------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["generate"], "no prompt"),
        (["generate", "   "], "prompt is empty"),
        (["generate", "--file", "missing.txt"], "no such file"),
        (["generate", "x", "--rounds", "0"], "at least 1"),
        (["generate", "x", "--rounds", "many"], "--rounds must be int, not 'many'"),
        (["generate", "x", "--guidance", "0.5"], "--guidance must be at least 1"),
        (["generate", "x", "--top-p", "2"], "--top-p must be above 0 and at most 1"),
        (["generate", "x", "--guidance", "inf"], "--guidance must be float"),
        (["generate", "x", "--samples", "2147483648"], "at most 65536"),
        (["generate", "a\udcff"], "not UTF-8"),
        (["generate", "x", "--tempreature", "2"], "unknown option --tempreature: did you mean --temperature?"),
        (["generate", "x", "--history", "none"], "--history must be full or last, not 'none'"),
        (["generate", "x", "--out", "."], "names no new file or folder"),
        (["judge", "missing.png", "--text", "x"], "no such file"),
        (["judge", "a.png", "--text", " "], "empty"),
        (["judge", "a.png", "--text", "x", "--text", "y"], "1 images and 2 texts"),
        (["eval", "world", "--rounds", "1,x"], "--rounds must be a list of int"),
        (["eval", "world", "--split", "train"], "unknown split"),
        (["nothing"], "no command 'nothing'"),
        (["eval", "wrld"], "did you mean janus-r1 eval world?"),
        (["judge", "a.png"], "required: --text"),
        (["edit", "a.png"], "required: INSTRUCTION"),
        ([], "required"),
    ],
)
def test_bad_input_is_one_line(capsys, monkeypatch, tmp_path, argv, expected):
    monkeypatch.chdir(tmp_path)
    assert expected in error_of(capsys, *argv)
    assert not list(tmp_path.iterdir())


def test_prompt_files(capsys, tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("\n# only a comment\n")
    assert "holds no prompt" in error_of(capsys, "generate", "--file", str(path))
    path.write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in error_of(capsys, "generate", "--file", str(path))


def test_images_are_refused_before_the_model_is_loaded(capsys, tmp_path):
    wide, text = tmp_path / "wide.png", tmp_path / "text.png"
    Image.new("RGB", (50_000, 8)).save(wide)
    text.write_text("no image")
    assert "too large: 50000 x 8" in error_of(capsys, "judge", str(wide), "--text", "x")
    assert "not an image" in error_of(capsys, "judge", str(text), "--text", "x")


def test_recipes(capsys, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("run:\n  stpes: 5\n")
    assert "did you mean run.steps?" in error_of(capsys, "train", "vq", "--config", str(recipe))
    assert "did you mean run.steps?" in error_of(capsys, "train", "vq", "--run.step", "5")
    assert "run.steps must be int" in error_of(capsys, "train", "vq", "--run.steps", "soon", "--json")
    assert "no such recipe" in error_of(capsys, "train", "vq", "--config", str(tmp_path / "no.yaml"))
    recipe.write_text("run: [1\n")
    assert "not valid YAML" in error_of(capsys, "data", "build", "--config", str(recipe))


def test_what_is_no_model(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "no config.json" in error_of(capsys, "generate", "x", "--model", str(tmp_path))
    assert "no model 'nothing'" in error_of(capsys, "generate", "x", "--model", "nothing")
    (tmp_path / "config.json").write_text("{")
    assert "config.json" in error_of(capsys, "generate", "x", "--model", str(tmp_path))


# ---------------------------------------------------------------------------------------- generate


def test_generate_writes_sheet_index_and_chains(stand_in, capsys):
    assert main(["generate", "A red ring!", "--seed", "7"]) == 0
    shown = capsys.readouterr().out
    out = Path("outputs/a-red-ring-7")
    assert "the ring is [red], not blue" in shown and "<- final" in shown and "outputs/a-red-ring-7/sheet.png" in shown
    assert {path.name for path in out.iterdir()} == {"01", "02", "03", "04", "chains.json", "sheet.png", ".janus-r1"}
    assert {p.name for p in (out / "01").iterdir()} == {
        "chain.json",
        "round_1.png",
        "round_2.png",
        "sheet.png",
        ".janus-r1",
    }
    assert load_chain(out / "03").settings.seed == 7


def test_generate_json_is_one_object(stand_in, capsys):
    Path("prompts.txt").write_text("# two\na ring\n\n  a star\n")
    assert main(["generate", "--file", "prompts.txt", "--out", "o", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [chain["prompt"] for chain in record["chains"]] == ["a ring", "a star"]
    first = record["chains"][0]
    assert first["final_round"] == 2 and first["accepted"] and first["p_yes"] == 0.9
    assert [round_["accepted"] for round_ in first["rounds"]] == [False, True]
    assert Path(first["image"]).is_file() and Path(record["sheet"]).is_file()
    assert record["settings"]["rounds"] == 3 and record["seed"] == 0 and record["seconds"] >= 0
    assert json.loads(Path("o/chains.json").read_text()) == record


def test_an_existing_folder_is_only_replaced_when_asked_and_ours(stand_in, capsys):
    assert main(["generate", "a ring", "--out", "o"]) == 0
    capsys.readouterr()
    assert "--overwrite" in error_of(capsys, "generate", "a ring", "--out", "o")
    assert main(["generate", "a ring", "--out", "o", "--overwrite", "--samples", "1"]) == 0
    assert not Path("o/02").exists()
    capsys.readouterr()
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("dear")
    assert "not written by janus-r1" in error_of(capsys, "generate", "a", "--out", "mine", "--overwrite")
    assert Path("mine/thesis.txt").read_text() == "dear"


def test_an_unwritable_out_is_found_before_the_model_is_loaded(stand_in, capsys):
    Path("file").write_text("x")
    assert "is a file" in error_of(capsys, "generate", "a ring", "--out", "file/below/out")
    assert "cannot write" in error_of(capsys, "eval", "world", "--out", "file/out.json")


def test_a_full_disk_leaves_nothing_half_written(stand_in, capsys, monkeypatch):
    def full(*paths):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    assert "cannot write o: No space left on device" in error_of(capsys, "generate", "a ring", "--out", "o")
    assert not list(Path().iterdir())


def test_a_full_disk_behind_stdout():
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "janus_r1.cli", "data", "splits", "--json"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip() == "janus-r1: error: [Errno 28] No space left on device"


def test_an_interrupt_ends_with_130(stand_in, capsys, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(StandIn, "generate", interrupted)
    assert main(["generate", "a ring", "--out", "o"]) == 130
    assert not Path("o").exists() and "Traceback" not in capsys.readouterr().err


def test_an_interrupt_while_modules_are_loaded_ends_with_130(capsys, monkeypatch):
    class Interrupts:
        def find_spec(self, name, path, target=None):
            if name == "janus_r1.cli":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "janus_r1.cli")
    monkeypatch.setattr(sys, "meta_path", [Interrupts(), *sys.meta_path])
    assert run() == 130 and capsys.readouterr().err == "janus-r1: interrupted\n"


def test_splits(capsys):
    assert main(["data", "splits", "--examples", "2", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    splits, edits = shown["splits"], shown["edits"]
    assert [splits[name]["count"] for name in ("test", "dense", "held_out", "train")] == [553, 100, 100, None]
    assert sum(splits["test"]["families"].values()) == 553 and len(splits["train"]["examples"]) == 2
    assert [edits[name]["count"] for name in ("test", "held_out", "train")] == [300, 100, None]
    assert set(edits["test"]["families"].values()) == {50} and len(edits["train"]["examples"]) == 2
    assert main(["data", "splits"]) == 0
    printed = capsys.readouterr().out
    assert "553 prompts" in printed and "300 edits" in printed


@pytest.mark.parametrize("command", ["world", "edit"])
def test_eval_never_replaces_a_folder(tmp_path, capsys, command):
    theirs = tmp_path / "results"
    theirs.mkdir()
    (theirs / "thesis.txt").write_text("x")
    assert "is a folder" in error_of(capsys, "eval", command, "--limit", "1", "--samples", "1", "--out", str(theirs))
    assert (theirs / "thesis.txt").read_text() == "x"


def test_a_recipe_is_printed_as_yaml_that_makes_it(capsys, tmp_path):
    assert main(["train", "vq", "--config", "shapes/vq", "--lr", "5e-4", "--run.steps=7", "--print_config"]) == 0
    (tmp_path / "mine.yaml").write_text(capsys.readouterr().out)
    again = parse(["train", "vq", "--config", str(tmp_path / "mine.yaml")]).keywords["recipe"]
    assert again.lr == 5e-4 and again.run.steps == 7
    assert (
        again == parse(["train", "vq", "--config", "shapes/vq", "--lr", "5e-4", "--run.steps", "7"]).keywords["recipe"]
    )


def test_what_is_missing_is_named_with_the_command_that_makes_it(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = error_of(capsys, "train", "sft", "--config", "shapes/sft")
    assert "janus-r1 train pretrain --config shapes/binding makes it" in said and "try --model tiny-base" in said
    assert "janus-r1 data build --config shapes/candidates makes it" in said
    assert not list(tmp_path.iterdir())


def test_a_second_run_in_a_folder_is_refused(capsys, tmp_path):
    with locked(tmp_path / "run"):
        assert "in use by another" in error_of(capsys, "train", "vq", "--run.out", str(tmp_path / "run"))


def test_a_second_generate_into_a_folder_is_refused(stand_in, capsys):
    with locked(Path("o")):
        assert "in use by another" in error_of(capsys, "generate", "a ring", "--out", "o")
    assert not list(Path().iterdir())


def test_an_error_leaves_no_control_characters_on_the_terminal(capsys):
    assert "\x1b" not in error_of(capsys, "judge", "a\x1b[31m.png", "--text", "x")
