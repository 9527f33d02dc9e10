"""Write docs/reliability.md from the results of the other scripts in reliability/results.

    cd tests
    python -m reliability.report

A script writes NAME.json, a line of JSON for each fault. Lines without `tried` are measurements, of
which every field is a column. What the first trial found, before most was mended, is in
first_trial.json, and which test or fault shows that a defect is mended.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reliability.figures import PROJECT, RESULTS

PAGE = PROJECT / "docs/reliability.md"
FIRST = "first_trial"
NOT_RUN = "Not run yet."
MOST_SAID = 6
# Of scripts that print their figures.
KEPT = " > reliability/results/{}.json"

Line = dict[str, Any]

HEAD = """\
# Reliability

Whatever is killed, filled, cut off or fed in: rows that were reported as stored are there, nothing
is there twice or by halves, the program says what happened in a sentence, and the same command, run
again, finishes the job. The scripts in [tests/reliability](../tests/reliability) do the damage for
real, and wrote every figure of this page. Short forms of them run with the tests
(`tests/acceptance/test_reliability.py`).

- **tried**: the damage done, at a moment or in a place that follows from a seed.
- **survived**: of these, how often everything was in the end as after an undisturbed run: rows,
  hashes, embeddings, thumbnails, tags, errors, compact vectors, indexes, files; and nothing else.
- **lost**, **doubled**: rows that were missing or too many in the end.
- **reruns failed**: how often the same command did not end with exit 0 the first time it was run
  again.

To run it all again, which takes hours (Linux; disks are filled and shares mounted as root):

```sh
cd tests
{commands}
python -m reliability.report
```

A script goes on where it ended. `--times`, `--seed` and `--only` choose among the tries, `--jobs`
says how many are made at once.
"""


@dataclass(frozen=True)
class Section:
    """A part of the page: the results of one script.

    Attributes:
        about: describes what is done, and what counts as survived.
        arguments: of the script, on the page.

    """

    script: str
    title: str
    about: str
    arguments: str = "PICTURES"


SECTIONS = (
    Section(
        "kills",
        "kill -9 of a command",
        """\
At moments spread evenly over the time that the command takes, half of the time with its children.
Then the same command again. `train` is repeated with `--resume` if it asks for that.""",
    ),
    Section(
        "undo",
        "Duplicates acted on, and undone",
        """\
500 copies are sent to the trash, moved, or replaced by links; `duplicates --apply` is killed 20
times on the way, run to its end, and undone, killed twice. Every file must be as it was, byte for
byte, with its times and rights, and so must every row.""",
    ),
    Section(
        "database_killed",
        "The database killed",
        """\
The server's first process killed, an immediate shutdown, one client's process killed. Ingest and
import may carry on by themselves or end and be run again; a query must end within five seconds with
an answer or a sentence; the page must answer within five seconds, with 503 at worst, and be back
within thirty without another command.""",
    ),
    Section(
        "disk_full",
        "A full disk",
        """\
Small filesystems of which 0.1 to 100 MB are left free. The command must end well or name the disk
within a minute, and so must the next `status`; with room again, the same command must end with exit
0, and what the index finds must be right.""",
    ),
    Section(
        "together",
        "Commands at once",
        """\
They start within a second of each other. None may fail, but for a sentence that says that another
is in the way; queries that go on meanwhile are answered or told the state of things.""",
    ),
    Section(
        "races",
        "Ingests and imports at once",
        """\
Two and five ingests of the same pictures, some of which prune, and imports beside index builds.
None may fail or deadlock; the table must equal the folder, and what the commands say that they
added, its rows.""",
    ),
    Section(
        "odd_worlds",
        "Odd worlds",
        """\
Pictures that change, vanish, and turn into folders, links and pipes while an ingest runs; folders
that move; names that no one should choose; clocks that go backwards; a share that stalls, refuses
and fails. The run must end, and its rows must be those of a new run over what is there then.""",
    ),
    Section("damaged", "Damaged pictures", "", f"PICTURES{KEPT.format('damaged')}"),
    Section("importers", "Damaged files of embeddings", "", KEPT.format("importers")),
    Section("serve_attacks", "Attacks on the page", "", f"PICTURES{KEPT.format('serve_attacks')}"),
    Section(
        "load",
        "Ten minutes of everything",
        """\
Sixteen clients ask by id, by picture and with filters, over HTTP and through the library, while
pictures are added and pruned, the index is rebuilt, duplicates are sought and tables refreshed. No
error; the 99th percentile of queries below ten times their median at rest; no growing memory.""",
        "PICTURES --minutes 10",
    ),
    Section(
        "promises",
        "What tests hold",
        """\
Promises that one try each can show. Tried: tests, those with parameters by each of them, and
those of the database on every kind of server; survived: passed.""",
        KEPT.format("promises"),
    ),
)


def lines(file: Path) -> list[Line]:
    """Return the figures of a results file."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def table(rows: Sequence[Sequence[object]]) -> str:
    """Return a table in Markdown; the first row is its head."""
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    written = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([written[0], "|" + "---|" * len(cells[0]), *written[1:]])


def tries_table(found: Iterable[Line]) -> str:
    """Return the table of what was tried and survived."""
    head = ("fault", "tried", "survived", "lost", "doubled", "reruns failed", "seen")
    rows: list[Sequence[object]] = [head]
    for line in found:
        figures = [line.get(name, 0) for name in ("tried", "survived", "lost", "doubled")]
        rows.append((line["fault"], *figures, line.get("first_rerun_failed", 0), seen(line)))
    return table(rows)


def seen(line: Line) -> str:
    """Return what else was counted, most frequent first, and the worst measurements."""
    counts = sorted(line.get("counts", {}).items(), key=lambda item: -item[1])
    said = [f"{name}: {count:,}" for name, count in counts[:MOST_SAID]]
    if more := len(counts) - MOST_SAID:
        said += [f"and {more} others"] if more > 0 else []
    said += [f"{name} at most {value:g}" for name, value in line.get("worst", {}).items()]
    return "; ".join(said)


def measures_table(found: Sequence[Line]) -> str:
    """Return a table with every field of the lines as a column."""
    names = list(dict.fromkeys(name for line in found for name in line))
    rows = [[shown(line.get(name, "")) for name in names] for line in found]
    return table([[name.replace("_", " ") for name in names], *rows])


def shown(value: object) -> str:
    """Return a value as the page has it."""
    if isinstance(value, dict):
        return ", ".join(f"{name}: {shown(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(shown, value))
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def failures(found: Iterable[Line]) -> str:
    """Return the tries that did not survive, with the reason."""
    said = [f"- {line['fault']}, {one}" for line in found for one in line.get("failures", [])]
    return "\n".join(["", "Not survived:", "", *said]) if said else ""


def part(section: Section, folder: Path) -> str:
    """Return a section of the page."""
    found = lines(folder / f"{section.script}.json")
    if not found:
        body = NOT_RUN
    elif all("tried" in line for line in found):
        body = tries_table(found) + failures(found)
    else:
        groups: dict[str, list[Line]] = {}
        for line in found:
            groups.setdefault(line.pop("table", ""), []).append(line)
        body = "\n\n".join(map(measures_table, groups.values()))
    about = f"{section.about}\n\n" if section.about else ""
    return f"## {section.title}\n\n{about}`{section.script}.py`\n\n{body}\n"


def first_trial(folder: Path) -> str:
    """Return what the first trial found, and what became of it."""
    known = lines(folder / f"{FIRST}.json")
    tried = [line for line in known if "tried" in line]
    defects = [line for line in known if "defect" in line]
    now = {
        line["fault"]: line
        for section in SECTIONS
        for line in lines(folder / f"{section.script}.json")
        if "tried" in line
    }
    head = ("fault", "tried", "survived", "lost or wrong")
    before = [[line[name] for name in ("fault", "tried", "survived", "wrong")] for line in tried]
    text = f"""\
## The first trial

An earlier version was tried by hand, about 10,000 times. This is what was found then.

{table([head, *before])}

What was broken, what shows that it is mended, and by which commit:
"""
    for kind in dict.fromkeys(line["kind"] for line in defects):
        rows = [
            (line["number"], line["defect"], proof(line, now), line["mended"] or "open")
            for line in defects
            if line["kind"] == kind
        ]
        text += f"\n### {kind}\n\n{table([('', 'then', 'now', 'mended by'), *rows])}\n"
    return text


def proof(line: Line, now: dict[str, Line]) -> str:
    """Return the figures of the faults that show whether a defect is mended, and the tests."""
    said = list(line["tests"])
    for prefix in line["faults"]:
        found = [one for fault, one in now.items() if fault.startswith(prefix)]
        if found:
            tried, survived = (sum(one[name] for one in found) for name in ("tried", "survived"))
            said.append(f"{prefix}: {survived:,} of {tried:,} survived")
        else:
            said.append(f"{prefix}: not run")
    return "; ".join(said) or "no test"


def machines(folder: Path) -> str:
    """Return on which machines and which code the tries ran."""
    found = dict.fromkeys(
        (line["code"], line["machine"])
        for section in SECTIONS
        for line in lines(folder / f"{section.script}.json")
        if line.get("machine")
    )
    said = [f"- commit {code}: {machine}" for code, machine in found]
    return "\n".join(["Run on:", "", *said, ""]) if said else ""


def page(folder: Path) -> str:
    """Return the page."""
    commands = "\n".join(
        f"python -m reliability.{section.script} {section.arguments}".rstrip()
        for section in SECTIONS
    )
    parts = [part(section, folder) for section in SECTIONS]
    parts = [HEAD.format(commands=commands), machines(folder), *parts, first_trial(folder)]
    return "\n".join(text for text in parts if text)


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(RESULTS))


if __name__ == "__main__":
    main()
