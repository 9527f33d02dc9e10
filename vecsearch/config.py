"""Settings: flag > `VECSEARCH_*` environment variable > default."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vecsearch.errors import InvalidInput
from vecsearch.vocabulary import Engine, choices

DEFAULT_MAX_PIXELS = 128_000_000


def default_data_dir() -> Path:
    """Return the user's data folder for vecsearch on this system."""
    import platformdirs

    return Path(platformdirs.user_data_dir("vecsearch", appauthor=False))


def default_cache_dir() -> Path:
    """Return the user's cache folder for vecsearch on this system."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("vecsearch", appauthor=False))


@dataclass(frozen=True)
class Runtime:
    """How encoders run.

    Attributes:
        device: "auto" (CUDA if there is one), "cpu", "cuda", "cuda:1", …
        engine: see `vecsearch.vocabulary.Engine`.
        cache_dir: where exported encoders are kept.

    """

    device: str
    engine: str
    cache_dir: Path


@dataclass(frozen=True)
class Settings:
    """What a library needs to open.

    Attributes:
        database_url: any Postgres >= 16 with pgvector >= 0.8; None means the embedded one.
        data_dir: where the embedded database lives.
        device: where encoders run: "auto" (CUDA if there is one), "cpu", "cuda", "cuda:1", …
        max_pixels: pictures with more pixels than this are refused before they are decoded.
        engine: see `Runtime`.
        cache_dir: see `Runtime`; None is the user's cache folder.

    """

    database_url: str | None
    data_dir: Path
    device: str = "auto"
    max_pixels: int = DEFAULT_MAX_PIXELS
    engine: str = "auto"
    cache_dir: Path | None = None

    @property
    def runtime(self) -> Runtime:
        """How encoders run."""
        return Runtime(self.device, self.engine, self.cache_dir or default_cache_dir())

    @classmethod
    def load(
        cls,
        *,
        database_url: str | None = None,
        data_dir: str | Path | None = None,
        device: str | None = None,
        max_pixels: int | None = None,
        engine: str | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> "Settings":
        """Fill what is not given from the environment, then from the defaults.

        Raises:
            InvalidInput: an environment variable has a value that cannot be used.

        """
        if max_pixels is None:
            text = environ.get("VECSEARCH_MAX_PIXELS") or str(DEFAULT_MAX_PIXELS)
            if not re.fullmatch(r"0*[1-9][0-9]{0,17}", text):
                raise InvalidInput(
                    f"VECSEARCH_MAX_PIXELS is {text!r}. Set it to a number of pixels, 1 or more."
                )
            max_pixels = int(text)
        chosen_engine = engine or environ.get("VECSEARCH_ENGINE") or "auto"
        if chosen_engine not in [*Engine]:
            raise InvalidInput(f"Unknown engine {chosen_engine!r}. Use --engine {choices(Engine)}.")
        cache_dir = environ.get("VECSEARCH_CACHE_DIR")
        return cls(
            database_url=database_url or environ.get("VECSEARCH_DATABASE_URL") or None,
            data_dir=_folder(
                "data", data_dir or environ.get("VECSEARCH_DATA_DIR") or default_data_dir()
            ),
            device=device or environ.get("VECSEARCH_DEVICE") or "auto",
            max_pixels=max_pixels,
            engine=chosen_engine,
            cache_dir=_folder("cache", cache_dir) if cache_dir else None,
        )


def _folder(what: str, chosen: str | Path) -> Path:
    try:
        return Path(chosen).expanduser().absolute()
    except RuntimeError as error:
        raise InvalidInput(f"The {what} folder {chosen}: {error} Name another.") from error
