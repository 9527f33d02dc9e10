"""Damage thousands of files of embeddings, and read them as an import does.

    python -m reliability.importers [--files 3000] [--seed 0]

Run it in tests/. Good files of every format are made, then truncated, flipped and spliced. Prints
one line of JSON: how many were tried; refused with a sentence or read after all; how many of
these crashed their process, took too long or too much memory; what escaped, which must be nothing;
and the most memory that any process took.
"""

import argparse
import io
import json
import random
import resource
import sys
import tempfile
import time
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from reliability.damaged import DAMAGES

from vecsearch.imaging.processes.process import Ended, Process
from vecsearch.ingest.formats.base import SECONDS

ROWS = 40
OUTCOMES = ("read", "refused", "out_of_memory", "crashed", "hung")


def main() -> None:
    """Damage, read, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--files", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = tried(Path(folder), arguments.files, arguments.seed)
    print(json.dumps(figures))
    sys.exit(figures["lost"] > 0)


def tried(folder: Path, files: int, seed: int) -> dict[str, Any]:
    """Return the figures of so many damaged files."""
    started = time.monotonic()
    random_ = random.Random(seed)
    outcomes: Counter[str] = Counter()
    escaped: dict[str, str] = {}
    worker = Process("vecsearch.ingest.formats.worker")
    for number in range(files):
        good = contents(random_)
        suffix = random_.choice([*good])
        content = good[suffix]
        if suffix == "npz" and random_.random() < 0.5:
            content = repacked(content, random_)
        else:
            content = random_.choice(DAMAGES)(bytearray(content), random_, [*good.values()])
        file = folder / f"{number}.{suffix}"
        file.write_bytes(content)
        try:
            outcomes[outcome(worker, file)] += 1
        except Ended as ended:
            outcomes["hung" if not ended.in_time else "crashed"] += 1
            worker.kill()
            worker = Process("vecsearch.ingest.formats.worker")
        except Exception as error:  # noqa: BLE001 - it is what must not be
            escaped[file.name] = repr(error)
        file.unlink()
    worker.kill()
    return {
        "fault": "damaged embeddings",
        "tried": files,
        "survived": sum(outcomes.values()),
        "lost": len(escaped),
        **{name: outcomes[name] for name in OUTCOMES},
        "escaped": escaped,
        "peak_worker_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1000,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000,
        "seconds": round(time.monotonic() - started),
    }


def outcome(worker: Process, file: Path) -> str:
    """Read a file to its end, as `formats.open_file` does, and return what became of it."""
    fields, _ = worker.ask({"file": str(file)}, seconds=SECONDS)
    while fields and "invalid" not in fields:
        fields, blobs = worker.receive(seconds=SECONDS)
        if "paths" in fields:
            vectors = np.frombuffer(blobs[0], np.float32).reshape(-1, fields["dimensions"])
            if len(vectors) != len(fields["paths"]) or not np.isfinite(vectors).all():
                raise AssertionError(f"{file}: a block that cannot be stored")
    if not fields:
        return "read"
    if str(file) not in fields["invalid"]:
        raise AssertionError(f"{fields['invalid']} does not name its file")
    return "out_of_memory" if "of memory" in fields["invalid"] else "refused"


def contents(random_: random.Random) -> dict[str, bytes]:
    """Return good files by suffix."""
    dimensions = random_.choice([1, 3, 64])
    vectors = np.random.default_rng(random_.randrange(2**32)).normal(size=(ROWS, dimensions))
    paths = [f"folder/ü {number}.jpg" for number in range(ROWS)]
    lines = [
        ",".join([path, *map(str, row)]) for path, row in zip(paths, vectors.round(4), strict=True)
    ]
    npz, parquet = io.BytesIO(), io.BytesIO()
    np.savez_compressed(npz, paths=np.array(paths), embeddings=vectors.astype(np.float32))
    rows = pa.array([*vectors.astype(np.float32)], pa.list_(pa.float32()))
    compression = random_.choice(["snappy", "zstd", "gzip", "none"])
    pq.write_table(pa.table({"path": paths, "embedding": rows}), parquet, compression=compression)
    return {
        "csv": "\n".join(lines).encode(),
        "npz": npz.getvalue(),
        "parquet": parquet.getvalue(),
    }


def repacked(content: bytes, random_: random.Random) -> bytes:
    """Damage the members of an archive, whose checksums are then right."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as good, zipfile.ZipFile(out, "w") as bad:
        members = [good.read(name) for name in good.namelist()]
        for name, member in zip(good.namelist(), members, strict=True):
            damaged = random_.choice([*DAMAGES, lambda content, *_: bytes(content)])
            bad.writestr(name, damaged(bytearray(member), random_, members))
    return out.getvalue()


if __name__ == "__main__":
    main()
