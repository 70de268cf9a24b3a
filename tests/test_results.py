"""The numbers of the README are those of the committed results."""

from __future__ import annotations

from pathlib import Path

from janus_r1.eval import report
from janus_r1.eval.report import summary
from janus_r1.reading import read_json

ROOT = Path(__file__).parent.parent
ORDER = [
    f"tiny-{model}-{split}.json"
    for model in ("base", "sft", "r1", "r1-edit", "repair")
    for split in ("test", "held_out", "dense")
]


def test_the_readmes_rows_are_those_of_the_results():
    results = [read_json(ROOT / "results" / name) for name in ORDER]
    rows = summary(results).strip().splitlines()
    for page, least in (("README.md", 4), ("docs/results.md", len(ORDER))):
        lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
        shown = [line for line in lines if line.startswith("| tiny-") and line.count("|") == rows[0].count("|")]
        assert len(shown) >= least and set(shown) <= set(rows), f"{page}: run studies/evaluate.sh and copy its summary"


def test_the_page_of_results_is_what_the_report_makes_of_them():
    seen = [f"understanding-tiny-{model}.json" for model in ("base", "sft", "r1", "r1-edit")]
    made = report.page([str(ROOT / "results" / name) for name in (*ORDER, *seen)])
    written = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert made == written, "run the last line of studies/evaluate.sh"
