"""The table of supported image formats."""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec


@dataclass(frozen=True)
class Format:
    """An image format.

    Attributes:
        name: Pillow's name for the format, if it has one.
        media_type: media type in HTTP.
        suffixes: suffixes of its files.
        is_drafted: whether the decoder can scale to a half, a quarter or an eighth.
        is_opened: whether Pillow opens it by this name; otherwise another format's plugin opens it.
        package: what must be installed to read it, if vecsearch can do without.
        extra: which extra installs that.

    """

    name: str
    media_type: str
    suffixes: tuple[str, ...]
    is_drafted: bool = False
    is_opened: bool = True
    package: str | None = None
    extra: str | None = None

    @property
    def needs(self) -> str:
        """What to install to read it, as a sentence."""
        return f"{self.name} files need a package: pip install 'vecsearch[{self.extra}]'"

    @property
    def is_readable(self) -> bool:
        """Whether what is needed to read it is installed; it is not loaded."""
        return self.package is None or is_installed(self.package)


@cache
def is_installed(package: str) -> bool:
    """Return whether a package is there to be imported."""
    return find_spec(package) is not None


# A camera's RAW file, which is read by the preview in it.
RAW = Format(
    "RAW",
    "image/x-dcraw",
    tuple(
        ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef "
        ".raf .rw2 .rwl .sr2 .srf .srw".split()
    ),
    is_opened=False,
    package="rawpy",
    extra="raw",
)
# Pillow's other formats are not for photos, or are decoded by external programs.
TABLE = (
    Format("JPEG", "image/jpeg", (".jpg", ".jpeg", ".jpe", ".jfif"), is_drafted=True),
    # A file of several JPEGs.
    Format("MPO", "image/jpeg", (), is_drafted=True, is_opened=False),
    Format("PNG", "image/png", (".png",)),
    Format("WEBP", "image/webp", (".webp",)),
    Format("GIF", "image/gif", (".gif",)),
    Format("BMP", "image/bmp", (".bmp",)),
    Format("DIB", "image/bmp", (".dib",)),
    Format("TIFF", "image/tiff", (".tif", ".tiff")),
    Format("AVIF", "image/avif", (".avif",)),
    Format("HEIF", "image/heif", (".heic", ".heif")),
    RAW,
)

SUFFIXES = frozenset(suffix for format_ in TABLE for suffix in format_.suffixes)
NAMED = tuple(format_.name for format_ in TABLE if format_.suffixes)
FORMATS = tuple(format_.name for format_ in TABLE if format_.is_opened)
# Those of a file whose bytes 4 to 7 are not "ftyp".
WITHOUT_BOXES = tuple(name for name in FORMATS if name not in {"AVIF", "HEIF"})
DRAFTED = frozenset(format_.name for format_ in TABLE if format_.is_drafted)
MEDIA_TYPES = {format_.name: format_.media_type for format_ in TABLE}
