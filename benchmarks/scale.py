"""Write the table of docs/scale.md: what 100,000 to a billion images take.

    python benchmarks/scale.py --rows 20000

A collection of synthetic vectors (see vectors.py) is made and measured, and `status --estimate` is
asked what more images would take. Where growth.py or databases.py have measured as many, their
figures stand instead, and are called measured.
"""

import argparse
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import growth
import product
from vectors import DIMENSIONS, Vectors

from vecsearch.config import Settings
from vecsearch.library import Library
from vecsearch.render.figures import human_bytes, human_time
from vecsearch.search.indexes.capacity import KEPT_SHARE, MACHINE_BYTES, Need
from vecsearch.vocabulary import DIMS, least_ef_search

SIZES = (10**5, 10**6, 10**7, 10**8, 10**9)
COLLECTION = "scale"
ROOT = Path(__file__).parent
# What is between these lines of the page is replaced.
BEGIN, END = "<!-- written by benchmarks/scale.py -->\n", "<!-- end -->\n"


def main() -> None:
    """Measure, and write the table into the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    parser.add_argument("--page", type=Path, default=ROOT.parent / "docs" / "scale.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        needs = estimated(Path(folder), options.rows)
    written = replaced(options.page.read_text(), table(needs, measured(options.results)))
    options.page.write_text(written)


def estimated(folder: Path, rows: int) -> dict[int, list[Need]]:
    """Return what `status --estimate` says for each size, by a collection of so many rows."""
    with Library.open(Settings.load(data_dir=folder)) as library:
        library.upgrade()
        product.load(library, COLLECTION, Vectors(rows), rows)
        product.build(library, COLLECTION, "compact")
        return {size: library.capacity(size)[0].needs for size in SIZES}


def measured(results: Path) -> dict[tuple[int, str], dict[str, float]]:
    """Return bytes and seconds that other scripts measured, by number of rows and index method.

    Not those of a machine that did other work meanwhile, which the result says then.
    """
    found = {
        (result["rows"], "compact"): _figures(
            result, result["index_mb"] + result["compact_mb"], result["rows_mb"]
        )
        for result in growth.read_results(results)
        if not result.get("other_work")
    }
    file = results / "databases.json"
    if file.exists():
        compared = json.loads(file.read_text())
        built = compared["builds"].get("hnsw")
        if built is not None:
            found[compared["rows"], "hnsw"] = _figures(built, built["index_mb"], None)
    return found


def _figures(built: dict[str, Any], index_mb: float, rows_mb: float | None) -> dict[str, float]:
    figures = {"memory": 1e6 * index_mb, "build_s": built["graph_s"]}
    return figures if rows_mb is None else {**figures, "disk": 1e6 * (rows_mb + index_mb)}


def table(needs: dict[int, list[Need]], known: dict[tuple[int, str], dict[str, float]]) -> str:
    """Return a Markdown table; computed figures are in italics."""
    names = "images, index, on disk, index in memory, memory to build, build, ef_search, machines"
    lines = [f"| {names.replace(', ', ' | ')} |", "|--:|---" + "|--:" * 6 + "|"]
    for size, each in needs.items():
        for need in each:
            figures = known.get((size, need.index), {})
            cells = (
                _cell(figures.get("disk"), need.disk_bytes),
                _cell(figures.get("memory"), need.memory_bytes),
                f"*{human_bytes(need.build_memory_bytes)}*",
                human_time(figures["build_s"]) if figures else f"*{human_time(need.build_s)}*",
                f"{least_ef_search(size):,}",
                f"{need.machines}",
            )
            lines.append(f"| {size:,} | {need.index} | {' | '.join(cells)} |")
    machine = f"{MACHINE_BYTES // 2**30} GB of memory, {KEPT_SHARE:.0%} of it for the index"
    return "\n".join(
        [
            f"Embeddings of {DIMENSIONS:,} numbers; compact vectors of {DIMS.default}; without",
            "thumbnails and tags. *Computed* by `status --estimate`, on two cores; the others were",
            f"measured. A machine has {machine}.",
            "",
            *lines,
        ]
    )


def _cell(measured: float | None, computed: int) -> str:
    return f"*{human_bytes(computed)}*" if measured is None else human_bytes(round(measured))


def replaced(page: str, text: str) -> str:
    """Return a page with another text between its marks."""
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if pattern.search(page) is None:
        raise SystemExit(f"The page has no place for the table: {BEGIN.strip()} … {END.strip()}")
    return pattern.sub(lambda _: f"{BEGIN}\n{text}\n\n{END}", page)


if __name__ == "__main__":
    main()
