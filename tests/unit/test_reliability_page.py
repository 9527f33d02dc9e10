"""How tries are counted, databases compared, and docs/reliability.md written."""

import json
import random
from collections import Counter
from pathlib import Path

import pytest
from reliability import report
from reliability.contents import Contents, compare
from reliability.figures import RESULTS, Outcome, tallies, tries


def test_the_page_is_what_the_results_say() -> None:
    assert report.PAGE.read_text() == report.page(RESULTS)


def test_tries_go_on_where_they_ended_and_start_anew_for_other_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "kills.json"
    seen: list[float] = []

    def attempt(chance: random.Random) -> Outcome:
        seen.append(chance.random())
        outcome = Outcome(lost=1, worst={"took_s": seen[-1]}, counts=Counter(told=1))
        if len(seen) == 2:
            raise RuntimeError("it broke")
        return outcome

    monkeypatch.setattr("reliability.figures.code", lambda: "one")
    tries("a fault", attempt, times=2, file=file)
    tally = tries("a fault", attempt, times=3, file=file)
    assert len(set(seen)) == 3
    assert (tally.tried, tally.survived, tally.lost, tally.counts) == (3, 2, 2, {"told": 2})
    assert tally.worst == {"took_s": round(max(seen[0], seen[2]), 3)}
    assert tally.failures == ["try 2: RuntimeError: it broke"]
    assert tallies(file) == {"a fault": tally}
    monkeypatch.setattr("reliability.figures.code", lambda: "two")
    assert tries("a fault", attempt, times=1, file=file).tried == 1
    # The same tries again.
    assert seen[3] == seen[0]


def test_a_comparison_counts_what_is_lost_doubled_and_left_over() -> None:
    def held(*ids: str, index: str = "i") -> Contents:
        rows = {"vecsearch.images": Counter(ids)}
        return Contents(rows, {"vecsearch.images": set(ids)}, {index})

    assert not compare(held("a", "b"), held("a", "b"))
    difference = compare(held("a", "a", "c", index="other"), held("a", "b"))
    assert (difference.lost, difference.doubled) == (1, 1)
    assert difference.words == (
        "vecsearch.images: 1 rows missing, 2 too many or wrong; missing: i; left over: other"
    )


def test_the_page_has_every_line_and_says_what_was_not_run(tmp_path: Path) -> None:
    assert report.page(tmp_path).count(report.NOT_RUN) == len(report.SECTIONS)
    tried = {"fault": "kill -9 of x", "tried": 50, "survived": 49, "failures": ["try 7: it broke"]}
    measured = [
        {"table": "queries", "query": "by id", "p99_ms": 12.345},
        {"table": "in all", "errors": 0, "said": {}},
    ]
    defect = {"number": 3, "kind": "Data", "defect": "all gone", "faults": ["kill -9", "drop"]}
    for name, lines in (
        ("kills", [tried]),
        ("load", measured),
        ("first_trial", [{**defect, "tests": ["test_x.py"], "mended": ""}]),
    ):
        (tmp_path / f"{name}.json").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    page = report.page(tmp_path)
    assert "| kill -9 of x | 50 | 49 | 0 | 0 | 0 |  |" in page
    assert "- kill -9 of x, try 7: it broke" in page
    assert "| query | p99 ms |\n|---|---|\n| by id | 12.35 |" in page
    assert "| 3 | all gone | test_x.py; kill -9: 49 of 50 survived; drop: not run | open |" in page
