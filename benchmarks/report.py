"""Write docs/performance.md from the results of the other scripts in benchmarks/results.

    python benchmarks/report.py

databases.py and growth.py write JSON. The output of another script is copied from NAME.md, written
for example by `python benchmarks/ingest.py … > benchmarks/results/ingest.md`.
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
# Performance

Every table here was written by a script in [benchmarks/](../benchmarks) that measures both sides in
one run. Ratios carry over to other machines; absolute times do not.{machine}

{contents}"""


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        about: describes what is measured.
        scripts: the scripts that measure it, with their arguments.
        taken: names of results that are copied unchanged.

    """

    title: str
    about: str
    scripts: tuple[str, ...]
    taken: tuple[str, ...] = ()


SECTIONS = (
    Section(
        "Ingest",
        """\
An ingest from a folder to rows, end to end, compared with the encoder alone on ready tensors, and
with one picture at a time through timm's own transform. A second run over unchanged files is a walk
and one comparison. The same on a CUDA device, if there is one.""",
        ("ingest.py", "unchanged.py", "gpu.py"),
        ("ingest", "unchanged", "cuda"),
    ),
    Section(
        "Encoder",
        """\
ResNet50's forward pass compared with the bound set by the machine's matrix multiplication: 8.2
GFLOP per picture, divided by the measured speed of single-precision products. All layers are in
int8 here.""",
        ("encoder.py",),
        ("encoder",),
    ),
    Section(
        "Int8",
        """\
`ingest --precision int8` compared with fp32, for tf_efficientnet_lite0 with real weights on 799
photos of Caltech 101 in 25 classes: the share of the ten nearest that stay, mAP, and the ratio of
pictures per CPU second. As few layers stay in fp32 as keep 0.978 of the ten nearest among up to 600
of the pictures. The second table is of photos that calibration did not see: it saw every second
one, and the queries are the others. The third has all layers in int8.""",
        (
            "int8.py PICTURES --also MORE",
            "int8.py PICTURES --half",
            "int8.py PICTURES --also MORE --least-kept 0",
        ),
        ("int8", "int8-half", "int8-all"),
    ),
    Section(
        "Query",
        """\
One command that also starts the embedded database, for a new picture and for a stored one, compared
with importing timm, loading the model and one forward pass.""",
        ("cold_query.py",),
        ("cold_query",),
    ),
    Section(
        "Pages",
        """\
What `vecsearch serve` answers, one request after another on one connection; thumbnails and scripts
that a page loads are not included, and a thumbnail is measured by itself. The first request is
before everything else of its kind: the first page of duplicates compares all pictures, and the next
ones show the same answer until the collection changes.""",
        ("pages.py PICTURES...",),
        ("pages",),
    ),
    Section(
        "Index",
        """\
An index on principal components (`vecsearch index create --method compact`) compared with one on
embeddings (`--method hnsw`): {rows} rows of 2,048 numbers, the 10 nearest by cosine, from the same
run as the next section. The build is everything that the command does: it fits the components,
projects every row, stores the compact vectors, and builds the graph.""",
        ("databases.py --only hnsw compact",),
    ),
    Section(
        "Databases",
        """\
vecsearch compared with the alternatives: {rows} rows of 2,048 numbers, the 10 nearest by cosine for
{queries} vectors that are not stored, one query after another from one thread; medians of {rounds}
rounds in which all take turns. Graphs have 16 links per node, built with 64 candidates, by all
cores. Each is searched with the smallest setting (ef_search, candidates, probes or the like) that
reaches a recall of 0.999 or, if none of those tried does, with the one of the highest recall. The
exact answer is computed from the same vectors, which are rounded to half precision before they are
loaded. vecsearch's time is that of its statement on an open connection, as an application runs it;
through `Library` it includes looking up the collection, checking the schema, and the plan.
hnswlib, faiss and usearch are libraries in the querying process, which store no rows.""",
        ("databases.py",),
    ),
    Section(
        "Growth",
        """\
The compact index from ten thousand rows to a million: the rows are imported without an index, the
index is built and tuned, and queried for the 10 nearest to vectors that are not stored. Memory is
the peak sum of proportional set sizes, of the server's processes and of the importing process,
which here also makes the vectors.""",
        ("growth.py --rows 10000 100000 1000000", "plots.py"),
    ),
    Section(
        "Memory",
        "The peak memory of an ingest of ten thousand files, compared with one thousand.",
        ("memory.py",),
        ("memory",),
    ),
)
NOT_RUN = "*Not measured yet.*"
VECTORS = """\
The vectors are synthetic, from a seed, in a thousand classes, non-negative, three quarters of their
numbers zero; [vectors.py](../benchmarks/vectors.py) compares them with real features. If your
images' neighbours are harder to distinguish, every graph needs a higher ef_search; `vecsearch index
tune` measures it on your own images."""
PLOT = """\
![Build time, size, answers and memory against the number of rows](performance-growth.svg)

The dashed line is a straight line through the last two sizes, up to a billion rows: extrapolated,
not measured. A billion rows of 2,048 numbers need several servers."""


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    default = ROOT.parent / "docs" / "performance.md"
    parser.add_argument("--output", type=Path, default=default)
    parser.add_argument("--machine", default="", help="a sentence about the measuring machine")
    options = parser.parse_args()
    options.output.write_text(report(options.results, options.machine))


def report(results: Path, machine: str = "") -> str:
    """Return the page for the results in a folder; sections without results say so."""
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
    """Return a table that compares the compact index with HNSW on embeddings."""
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
        ("index and compact vectors, MB", direct["index_mb"], compact["stored_mb"], 0),
        ("p50, ms", of_direct["p50_ms"], of_compact["p50_ms"], 2),
        ("p95, ms", of_direct["p95_ms"], of_compact["p95_ms"], 2),
        ("recall@10 of exact", of_direct["recall"], of_compact["recall"], 4),
    ):
        ratio = f"{other / one:.2f}" if one else ""
        lines.append(f"| {name} | {one:,.{digits}f} | {other:,.{digits}f} | {ratio} |")
    by_id = [f"{result['builds'][name]['by_id_p50_ms']:.1f} ms ({name})" for name in names]
    return [
        "\n".join(lines),
        f"`Library.query(id=…)` for a stored image, p50: {', '.join(by_id)}.",
    ]


def _databases(result: dict[str, Any]) -> list[str]:
    ratios = "\n".join(f"- {line}" for line in databases.ratios(result))
    return [databases.table(result), databases.NOTE, ratios, VECTORS]


if __name__ == "__main__":
    main()
