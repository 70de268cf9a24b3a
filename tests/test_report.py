"""Many results as one page."""

from __future__ import annotations

from pathlib import Path

import pytest

from janus_r1.eval.report import main

RESULTS = Path(__file__).parent.parent / "results"


def test_a_page_opens_with_a_line_a_result(capsys):
    main([str(RESULTS / "tiny-base-test.json"), str(RESULTS / "tiny-sft-test.json")])
    page = capsys.readouterr().out
    assert page.startswith("# Results\n\n| model | prompts |") and page.count("\n## tiny-") == 2
    assert "| tiny-base | test |" in page and "**Controls on independent drafts**" in page


def test_what_is_no_result_ends_in_one_line(capsys):
    with pytest.raises(SystemExit) as end:
        main([str(RESULTS / "tokenizer.json")])
    assert end.value.code == 2
    assert "tokenizer.json is not a result of janus-r1 eval world or edit" in capsys.readouterr().err
