"""Settings, in order of precedence: flag, `VECSEARCH_*` environment variable, default."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vecsearch.errors import InvalidInput
from vecsearch.vocabulary import Engine, parse

DEFAULT_MAX_PIXELS = 128_000_000
# Kinds of torch devices, of which there may be several: cuda:1.
DEVICES = ("cpu", "cuda", "mps", "xpu")


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
    """Where and how encoders run.

    Attributes:
        device: "auto" (CUDA if available), "cpu", "cuda", "cuda:1", …
        engine: the name of an `Engine`.
        cache_dir: folder of exported encoders.
        sentences: folder of the sentence encoder; None uses the one that the extra installs.

    """

    device: str
    engine: str
    cache_dir: Path
    sentences: Path | None = None


@dataclass(frozen=True)
class Settings:
    """The settings of a library.

    Attributes:
        database_url: any Postgres >= 16 with pgvector >= 0.8; None uses the embedded one.
        reader_url: the same database as a role that can only read, which is all that searches and
            `vecsearch sql` need; None reads as the role of `database_url`. The embedded database
            has such a role of its own.
        data_dir: folder of the embedded database.
        device: where encoders run: "auto" (CUDA if available), "cpu", "cuda", "cuda:1", …
        max_pixels: pictures with more pixels are refused before decoding.
        engine: see `Runtime`.
        cache_dir: see `Runtime`; None uses the user's cache folder.
        sentences: see `Runtime`.

    """

    database_url: str | None
    data_dir: Path
    device: str = "auto"
    max_pixels: int = DEFAULT_MAX_PIXELS
    engine: str = Engine.auto
    cache_dir: Path | None = None
    sentences: Path | None = None
    reader_url: str | None = None

    @property
    def runtime(self) -> Runtime:
        """The settings of encoders."""
        cache_dir = self.cache_dir or default_cache_dir()
        return Runtime(self.device, self.engine, cache_dir, self.sentences)

    @classmethod
    def load(
        cls,
        *,
        database_url: str | None = None,
        reader_url: str | None = None,
        data_dir: str | Path | None = None,
        device: str | None = None,
        max_pixels: int | None = None,
        engine: str | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> "Settings":
        """Return settings; missing ones come from the environment, then from the defaults.

        Raises:
            InvalidInput: a setting or an environment variable has an invalid value.

        """
        if max_pixels is None:
            text = environ.get("VECSEARCH_MAX_PIXELS") or str(DEFAULT_MAX_PIXELS)
            if not re.fullmatch(r"0*[1-9][0-9]{0,17}", text):
                raise InvalidInput(
                    f"VECSEARCH_MAX_PIXELS is {text!r}. Set it to a number of pixels, 1 or more."
                )
            max_pixels = int(text)
        database_url = database_url or environ.get("VECSEARCH_DATABASE_URL") or None
        reader_url = reader_url or environ.get("VECSEARCH_READER_URL") or None
        if reader_url is not None and database_url is None:
            raise InvalidInput(
                "A reader's URL is set, and no database URL. Set --database-url, too, or unset "
                "--reader-url and VECSEARCH_READER_URL."
            )
        cache_dir = environ.get("VECSEARCH_CACHE_DIR")
        sentences = environ.get("VECSEARCH_SENTENCES")
        return cls(
            database_url=database_url,
            reader_url=reader_url,
            data_dir=_folder(
                "data", data_dir or environ.get("VECSEARCH_DATA_DIR") or default_data_dir()
            ),
            device=_device(device or environ.get("VECSEARCH_DEVICE") or "auto"),
            max_pixels=max_pixels,
            engine=parse(Engine, engine or environ.get("VECSEARCH_ENGINE") or Engine.auto),
            cache_dir=_folder("cache", cache_dir) if cache_dir else None,
            sentences=_folder("sentence encoder's", sentences) if sentences else None,
        )


def _device(name: str) -> str:
    if re.fullmatch(rf"auto|({'|'.join(DEVICES)})(:\d{{1,3}})?", name) is None:
        raise InvalidInput(f"There is no device {name!r}. Use --device auto, cpu or cuda.")
    return name


def _folder(what: str, chosen: str | Path) -> Path:
    try:
        return Path(chosen).expanduser().absolute()
    except RuntimeError as error:
        raise InvalidInput(f"The {what} folder {chosen}: {error} Name another.") from error
