"""Write docs/performance.md from what the other scripts left in benchmarks/results.

    python benchmarks/report.py

databases.py and growth.py leave JSON. What another prints is taken as it is from NAME.md:
for example `python benchmarks/ingest.py … > benchmarks/results/ingest.md`.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import databases
import growth

ROOT = Path(__file__).parent

HEAD = """\
# How fast it is

Every table here was written by a script in [benchmarks/](../benchmarks), which measures both sides
in one run. Ratios travel; absolute times are of the machine that made them, and no claims.{machine}

{contents}"""


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        about: what is measured.
        scripts: that measure it, with their arguments.
        taken: names of results that are taken as they are.

    """

    title: str
    about: str
    scripts: tuple[str, ...]
    taken: tuple[str, ...] = ()


SECTIONS = (
    Section(
        "Ingest",
        """\
Pictures from a folder to rows, end to end, beside the bare encoder on tensors that are ready and
beside one picture at a time through timm's own transform. A second run over unchanged files is a
walk and one comparison. With a CUDA device, the same there.""",
        ("ingest.py", "unchanged.py", "cuda.py"),
        ("ingest", "unchanged", "cuda"),
    ),
    Section(
        "Encoder",
        """\
ResNet50's forward pass beside what the machine's own matrix multiplication allows: 8.2 GFLOP a
picture over measured single-precision products.""",
        ("encoder.py",),
        ("encoder",),
    ),
    Section(
        "Query",
        """\
One command with the embedded database stopped: a picture that is new, and one that is stored,
beside importing timm, loading the model and one forward pass alone.""",
        ("cold_query.py",),
        ("cold_query",),
    ),
    Section(
        "Index",
        """\
An index of principal components (`vecsearch index create --method compact`) beside one of whole
embeddings (`--method hnsw`): {rows} rows of 2,048 numbers, the 10 nearest by cosine, by the run
that the next section is of. The build is everything that the command does: fitting the components,
projecting every row, storing that, and the graph.""",
        ("databases.py --only hnsw compact",),
    ),
    Section(
        "Databases",
        """\
vecsearch beside what people would pick instead, {rows} rows of 2,048 numbers, the 10 nearest by
cosine of {queries} vectors that are not stored, one question after another from one thread; medians
of {rounds} rounds in which all are asked in turn. Graphs have 16 links a node, built with 64
candidates, by all cores. Each is searched as broadly as it takes to find 0.999 of the exact answer,
or, if none of the breadths tried does, where it finds most. The exact answer is of the same
vectors, which are rounded to half precision before anybody gets them. vecsearch's own time is that
of its statement on an open connection, as an application runs it; through `Library` it includes
looking up the collection, checking the schema, and the plan. hnswlib, faiss and usearch are
libraries in the process that asks, with nothing to store rows in.""",
        ("databases.py",),
    ),
    Section(
        "Growth",
        """\
The compact index from ten thousand rows to a million: imported without an index, built afterwards,
tuned, and asked for the 10 nearest of vectors that are not stored. Memory is the highest sum of
proportional set sizes: of the server's processes, and of the importing process, which here makes
the vectors, too.""",
        ("growth.py --rows 10000 100000 1000000", "plots.py"),
    ),
    Section(
        "Memory",
        "The peak of an ingest of ten thousand files beside that of one thousand.",
        ("memory.py",),
        ("memory",),
    ),
)
NOT_RUN = "*Not measured yet.*"
VECTORS = """\
The vectors are made, seeded, in a thousand classes, non-negative, three quarters of them zero;
[vectors.py](../benchmarks/vectors.py) says how they compare with real features. Where neighbours
are harder to tell apart than these, every graph needs a broader search; `vecsearch index tune`
finds how broad on your own images."""
PLOT = """\
![Build time, size, answers and memory against the number of rows](performance-growth.svg)

Dashed is the straight line through the last two sizes, to a billion rows: extrapolated, not
measured. A billion rows of 2,048 numbers are a matter for several servers."""


def main() -> None:
    """Write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    default = ROOT.parent / "docs" / "performance.md"
    parser.add_argument("--output", type=Path, default=default)
    parser.add_argument("--machine", default="", help="a sentence on the machine that measured")
    options = parser.parse_args()
    options.output.write_text(report(options.results, options.machine))


def report(results: Path, machine: str = "") -> str:
    """Return the page, of what there is in a folder of results."""
    file = results / "databases.json"
    compared = json.loads(file.read_text()) if file.exists() else None
    grown = growth.read_results(results)
    known = {"rows": "100,000", "queries": "500", "rounds": "5"}
    if compared:
        known = {name: f"{compared[name]:,}" for name in known}
    contents = "\n".join(f"- [{section.title}](#{section.title.lower()})" for section in SECTIONS)
    parts = [HEAD.format(machine=machine and f"\n{machine}", contents=contents)]
    made = {
        "Index": _index(compared) if compared else [],
        "Databases": _databases(compared) if compared else [],
        "Growth": [growth.table(grown), PLOT] if grown else [],
    }
    for section in SECTIONS:
        commands = "\n".join(f"python benchmarks/{script}" for script in section.scripts)
        about = section.about.format_map(known)
        parts.append(f"## {section.title}\n\n{about}\n\n```sh\n{commands}\n```")
        files = [results / f"{name}.md" for name in section.taken]
        taken = [file.read_text().strip() for file in files if file.exists()]
        parts += made.get(section.title, []) + taken or [NOT_RUN]
    return "\n\n".join(parts) + "\n"


def _index(result: dict[str, Any]) -> list[str]:
    """Return the table of compact beside direct."""
    names = (databases.Direct.name, databases.Compact.name)
    if not result["builds"].keys() >= set(names):
        return []
    direct, compact = (result["builds"][name] for name in names)
    asked = {row["name"]: row for row in result["asked"]}
    of_direct, of_compact = asked[databases.DIRECT], asked[databases.COMPACT]
    lines = ["| | hnsw | compact | ratio |", "|---|--:|--:|--:|"]
    for name, one, other, digits in (
        ("build, s", direct["build_s"], compact["build_s"], 1),
        ("of which the graph, s", direct["graph_s"], compact["graph_s"], 1),
        ("index, MB", direct["index_mb"], compact["index_mb"], 0),
        ("the same with the compact vectors, MB", direct["index_mb"], compact["stored_mb"], 0),
        ("p50, ms", of_direct["p50_ms"], of_compact["p50_ms"], 2),
        ("p95, ms", of_direct["p95_ms"], of_compact["p95_ms"], 2),
        ("recall@10 of exact", of_direct["recall"], of_compact["recall"], 4),
    ):
        ratio = f"{other / one:.2f}" if one else ""
        lines.append(f"| {name} | {one:,.{digits}f} | {other:,.{digits}f} | {ratio} |")
    by_id = [f"{result['builds'][name]['by_id_p50_ms']:.1f} ms ({name})" for name in names]
    return [
        "\n".join(lines),
        f"`Library.query(id=…)`, of a stored image, p50: {', '.join(by_id)}.",
    ]


def _databases(result: dict[str, Any]) -> list[str]:
    ratios = "\n".join(f"- {line}" for line in databases.ratios(result))
    return [databases.table(result), databases.NOTE, ratios, VECTORS]


if __name__ == "__main__":
    main()
