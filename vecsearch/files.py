"""Where results are written: whether a file can be there, before the work that makes it."""

import os
from pathlib import Path

from vecsearch.errors import InvalidInput


def require_writable(file: Path) -> None:
    """Check that a file can be written at this place, over one that may be there.

    Raises:
        InvalidInput: its folder is not there, or it cannot be written to.

    """
    folder = file.absolute().parent
    if file.is_dir():
        raise InvalidInput(f"{file} is a folder. Name a file in it.")
    if not folder.is_dir():
        raise InvalidInput(f"The folder {folder} does not exist. Create it, or name another file.")
    if not os.access(folder, os.W_OK):
        raise InvalidInput(f"The folder {folder} cannot be written to. Name another file.")
