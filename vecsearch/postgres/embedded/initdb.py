"""Create the folder of a database, whole or not at all."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from vecsearch.errors import DatabaseUnavailable
from vecsearch.postgres.embedded import programs
from vecsearch.postgres.embedded.folder import PARTIAL
from vecsearch.postgres.embedded.troubles import explained

# The owner connects as this role.
OWNER = "postgres"
# It takes a second, and a minute on a slow disk.
TIMEOUT_S = 300.0


def create(folder: Path, version: int = programs.POSTGRES_VERSION) -> None:
    """Create the folder of a database of this major version.

    It gets its name when it is whole. Until then it has a name of its own: the children of a killed
    initdb go on working in theirs.

    Raises:
        DatabaseUnavailable: the disk is full, it takes too long, or root's system user cannot do
            this.
        RuntimeError: initdb failed.

    """
    partial = Path(tempfile.mkdtemp(prefix=f"{PARTIAL}-", dir=folder.parent))
    try:
        user = programs.account()
        if user.uid != os.geteuid():
            os.chown(partial, user.uid, user.gid)
        binary = programs.program("initdb", version)
        with programs.entrance(partial, user) as entrance, programs.executing(binary):
            done = subprocess.run(  # noqa: S603 - a program of the wheel
                [
                    str(binary),
                    "--auth=trust",
                    "--encoding=utf8",
                    f"--username={OWNER}",
                    f"--pgdata={entrance.path}",
                ],
                check=False,
                capture_output=True,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
                timeout=TIMEOUT_S,
                **entrance.options,
            )
        if done.returncode != 0:
            raise explained(f"{done.stdout}\n{done.stderr}", folder, done.returncode, "initdb")
        partial.rename(folder)
    except subprocess.TimeoutExpired as error:
        raise DatabaseUnavailable(
            f"Creating a database in {folder.parent} has not ended after {TIMEOUT_S:.0f} seconds. "
            "Check that disk, or choose another folder with --data-dir."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def sweep(data_dir: Path) -> None:
    """Remove what killed commands left of an initdb; what still changes is left for next time.

    The caller holds the lock of who starts the server, so no other command has one at work.
    """
    for left in data_dir.glob(f"{PARTIAL}*"):
        shutil.rmtree(left, ignore_errors=True)
