"""The numbers of the README are those of the committed results."""

from __future__ import annotations

from pathlib import Path

from janus_r1.eval.report import summary
from janus_r1.reading import read_json

ROOT = Path(__file__).parent.parent
ORDER = [
    f"tiny-{model}-{split}.json"
    for model in ("base", "sft", "r1", "r1-edit")
    for split in ("test", "held_out", "dense")
]


def test_the_readmes_table_is_the_summary_of_the_results():
    results = [read_json(ROOT / "results" / name) for name in ORDER]
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for line in summary(results).strip().splitlines():
        assert line in text, f"run studies/evaluate.sh and copy the first table of docs/results.md: {line}"
