"""The table of supported image formats."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """An image format.

    Attributes:
        name: Pillow's name for the format.
        media_type: media type in HTTP.
        suffixes: suffixes of its files.
        is_drafted: whether the decoder can scale to a half, a quarter or an eighth.
        is_opened: whether Pillow opens it by this name; otherwise another format's plugin opens it.

    """

    name: str
    media_type: str
    suffixes: tuple[str, ...]
    is_drafted: bool = False
    is_opened: bool = True


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
)

SUFFIXES = frozenset(suffix for format_ in TABLE for suffix in format_.suffixes)
FORMATS = tuple(format_.name for format_ in TABLE if format_.is_opened)
# Those of a file whose bytes 4 to 7 are not "ftyp".
WITHOUT_BOXES = tuple(name for name in FORMATS if name not in {"AVIF", "HEIF"})
DRAFTED = frozenset(format_.name for format_ in TABLE if format_.is_drafted)
MEDIA_TYPES = {format_.name: format_.media_type for format_ in TABLE}
