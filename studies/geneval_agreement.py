"""How far two GenEval scorers agree on the same images: ours without mmdet, and any other's result file.

    python studies/geneval_agreement.py ours.jsonl theirs.jsonl [--out agreement.json]

Both files are GenEval's own result file, one object an image: ours is written by ``janus-r1 eval geneval report FOLDER
--verdicts ours.jsonl``, the other by the original's ``evaluate_images.py`` or anyone's. Images are matched by the last
three parts of their names (00000/samples/00000.png), in whatever folder they lie.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from janus_r1.errors import UserError
from janus_r1.eval.geneval import TAGS
from janus_r1.eval.statistics import Rows, figure
from janus_r1.files import write_json
from janus_r1.reading import read_jsonl

SHOWN = 10


def agreement(ours: Mapping[str, Mapping[str, Any]], theirs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Verdicts by image name; shares with 95 % intervals over prompts, for images that both scored.

    ``kappa`` is Cohen's: agreement beyond what the two shares of right images make likely. None if that is certain.
    """
    names = sorted(ours.keys() & theirs.keys())
    if not names:
        raise UserError("the two files have no image in common: they are matched by names like 00000/samples/00000.png")
    first, second = (np.array([float(bool(rows[name]["correct"])) for name in names]) for rows in (ours, theirs))
    prompts = np.array([str(ours[name]["prompt"]) for name in names])
    tags = np.array([str(ours[name]["tag"]) for name in names])
    same = (first == second).astype(float)
    chance = first.mean() * second.mean() + (1 - first.mean()) * (1 - second.mean())
    rows = Rows(prompts, tags)
    return {
        "images": len(names),
        "only_ours": len(ours) - len(names),
        "only_theirs": len(theirs) - len(names),
        "agreement": figure(same, prompts),
        "by_tag": {tag: figure(same[tags == tag], prompts[tags == tag]) for tag in TAGS if tag in tags},
        "kappa": float((same.mean() - chance) / (1 - chance)) if chance < 1 else None,
        "overall_ours": rows.overall(first),
        "overall_theirs": rows.overall(second),
        "difference": rows.gain(second, first),
        "examples": [
            {"image": name, "ours": ours[name]["reason"] or "correct", "theirs": theirs[name]["reason"] or "correct"}
            for name, alike in zip(names, same, strict=True)
            if not alike
        ][:SHOWN],
    }


def read(path: Path) -> dict[str, dict[str, Any]]:
    """Verdicts by the last three parts of an image's name."""
    verdicts = {}
    for place, row in read_jsonl(path):
        if not isinstance(row, dict) or not {"filename", "tag", "prompt", "correct", "reason"} <= set(row):
            raise UserError(f"{place}: GenEval's result file has filename, tag, prompt, correct and reason")
        verdicts["/".join(Path(row["filename"]).parts[-3:])] = row
    return verdicts


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ours", type=Path)
    parser.add_argument("theirs", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(arguments)
    found = agreement(read(args.ours), read(args.theirs))
    for name in ("agreement", "overall_ours", "overall_theirs", "difference"):
        one = found[name]
        print(f"{name.replace('_', ' '):<15} {one['mean']:.4f} [{one['low']:.4f}, {one['high']:.4f}]")
    for tag, one in found["by_tag"].items():
        print(f"  {tag:<15} {one['mean']:.4f} of {one['n']}")
    print(f"kappa {found['kappa']}, {found['images']} images")
    for one in found["examples"]:
        print(f"  {one['image']}: ours: {one['ours']!r}; theirs: {one['theirs']!r}")
    if args.out:
        write_json(args.out, found)


if __name__ == "__main__":
    main()
