"""500 duplicates acted on, killed 20 times on the way; then undone, killed 20 times again.

    python -m reliability.undo PICTURES --times 1

A try survives if, when all is undone, every file has the content, times and rights that it had, and
every row of every table is as it was. The pictures are drawn.
"""

import os
import random
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reliability.contents import Contents, compare, contents
from reliability.figures import Attempt, Outcome
from reliability.frame import PATIENCE_S, Done, Place, Workshop, kill, main
from support import picture

from vecsearch.vocabulary import FileAction

FILES, KILLS = 500, 20
# What the journal and the feed of changes say is more than before.
GROWING = ("vecsearch_internal.file_actions", "vecsearch_internal.changes")
# The server notices within this time that a command was killed.
NOTICED_S = 0.1


@dataclass
class Undone:
    """Acts on the files of duplicates, and undoes it, both killed again and again."""

    shop: Workshop
    action: FileAction

    def __call__(self, chance: random.Random) -> Outcome:
        """Make one try."""
        outcome = Outcome()
        with self.shop.making, self.shop.copy(self._template()) as place:
            shutil.rmtree(self._twins)
            subprocess.run(["cp", "-a", self._saved, self._twins], check=True)
            files, rows = on_disk(self._twins), _contents(place)
            moved = ["--to", str(place.data.parent / "moved")]
            words = ["duplicates", "--apply", self.action, "--keep", "path", "--yes"]
            words += ["--prefer", str(self._twins / "kept"), "--max-distance", "0.0001"]
            words += moved if self.action is FileAction.move else []
            self._killed(place, words, outcome, chance)
            runs = place.must("undo", "--list", "--format", "csv").stdout.splitlines()[1:]
            outcome.counts["acted on"] = sum(int(run.split(",")[4]) for run in runs)
            if outcome.counts["acted on"] != FILES:
                outcome.fail(f"{outcome.counts['acted on']} of {FILES} files acted on")
            for run in runs:
                if int(run.split(",")[4]):
                    self._killed(place, ["undo", run.split(",")[0], "--yes"], outcome, chance)
            if (found := on_disk(self._twins)) != files:
                names = sorted({name for name, _ in found.items() ^ files.items()})
                outcome.fail(f"files differ: {len(names)}, {', '.join(names[:3])}")
            difference = compare(_contents(place), rows)
            outcome.lost, outcome.doubled = difference.lost, difference.doubled
            if difference:
                outcome.fail(difference.words)
        return outcome

    def _killed(
        self, place: Place, words: list[str], outcome: Outcome, chance: random.Random
    ) -> None:
        """Run a command until it has nothing more to do; kill it on the way."""
        begins = self._run(place, ["undo", "--list"]).seconds
        for _ in range(KILLS if words[0] == "duplicates" else max(1, KILLS // 10)):
            process = self._start(place, words)
            time.sleep(begins + chance.uniform(0, 0.5))
            outcome.counts[f"kills of {words[0]}"] += kill(process, group=chance.random() < 1 / 2)
            time.sleep(NOTICED_S)
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            done = self._run(place, words)
            if done.status == 0 or "nothing to undo" in done.stderr:
                return
            outcome.counts[f"rerun: {done.said}"[:160]] += 1
        outcome.fail(f"{words[0]} did not end")

    def _start(self, place: Place, words: list[str]) -> "subprocess.Popen[str]":
        home = {"HOME": str(place.data.parent), "XDG_DATA_HOME": str(place.data.parent / "home")}
        return place.start(*words, **home)

    def _run(self, place: Place, words: list[str]) -> Done:
        home = {"HOME": str(place.data.parent), "XDG_DATA_HOME": str(place.data.parent / "home")}
        return place.run(*words, **home)

    @property
    def _twins(self) -> Path:
        return self.shop.folder / "twins"

    @property
    def _saved(self) -> Path:
        return self.shop.folder / "twins.saved"

    def _template(self) -> Path:
        """A collection of so many drawn pictures, and a copy of each."""

        def fill(place: Place) -> None:
            for number in range(FILES):
                for folder in ("kept", "copies"):
                    file = self._twins / folder / f"{number:04}.png"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    picture(number).save(file)
                    os.utime(file, (1_700_000_000 + number, 1_700_000_000 + number))
            place.must("ingest", self._twins, *self.shop.encoder)
            place.must("index", "create", "--method", "compact", "--dims", "64")
            subprocess.run(["cp", "-a", self._twins, self._saved], check=True)

        return self.shop.template("twins-data", fill)


def on_disk(folder: Path) -> dict[str, tuple[bytes, int, int, int]]:
    """Return each file's content, modification time, mode and number of names."""
    found = {}
    for file in sorted(folder.rglob("*")):
        info = file.lstat()
        if not file.is_dir():
            content = b"" if file.is_symlink() else file.read_bytes()
            name = str(file.relative_to(folder))
            found[name] = (content, info.st_mtime_ns, info.st_mode, info.st_nlink)
    return found


def _contents(place: Place) -> Contents:
    with place.url() as url:
        found = contents(url)
    for table in GROWING:
        found.rows.pop(table, None)
    return found


def faults(shop: Workshop) -> Mapping[str, Attempt]:
    """Return the tries of this script."""
    return {
        f"{FILES} duplicates: {action}, and undo": Undone(shop, action) for action in FileAction
    }


if __name__ == "__main__":
    main("undo", faults, times=1)
