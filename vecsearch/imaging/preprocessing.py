"""Prepare a picture as a network's input, like timm's evaluation transform.

It uses only Pillow, so that worker processes can prepare pictures without loading torch.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from vecsearch.errors import EncoderError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image as Picture

# Largest size to resize a whole picture to, in pixels. A very long one would take gigabytes, so
# only the part that the crop keeps is resized.
MOST_RESIZED = 1 << 26
# Pillow's filters by the names that timm has for them: who only names one need not import Pillow.
FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes a network's input.

    Attributes:
        height, width: size of the input, in pixels.
        crop_share: side of the input divided by the side of the resized picture.
        crop_mode: "center" resizes the shorter side and crops, "border" resizes the longer side
            and pads, "squash" resizes both.
        resampling: one of `FILTERS`.
        mean, std: mean and standard deviation of each channel, where white is 1.

    """

    height: int
    width: int
    crop_share: float
    crop_mode: str
    resampling: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Self:
        """Return the preprocessing of an identity, which has timm's key names.

        Raises:
            EncoderError: the network's input does not have three channels, or needs another filter.

        """
        channels, height, width = stored["input_size"]
        name = stored["interpolation"]
        if channels != 3 or name not in FILTERS:  # noqa: PLR2004 - red, green, blue
            raise EncoderError(
                f"This model reads pictures of {channels} channels, resized by {name}, and "
                "vecsearch prepares colours by Pillow's filters. Name another --model."
            )
        return cls(
            height,
            width,
            stored.get("crop_pct", 1.0),
            stored["crop_mode"],
            FILTERS[name],
            tuple(stored.get("mean", (0.0,) * 3)),
            tuple(stored.get("std", (1.0,) * 3)),
        )

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of a prepared picture, in pixels."""
        return self.height, self.width

    def to_json(self) -> dict[str, Any]:
        """Return the fields, for `from_json` in another process."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Return what `to_json` was called on."""
        return cls(
            **{
                **fields,
                "mean": tuple(fields["mean"]),
                "std": tuple(fields["std"]),
            }
        )

    def prepare(self, pixels: "Picture") -> "NDArray[np.uint8]":
        """Resize and crop a picture of mode RGB; return shape (height, width, 3)."""
        import numpy as np

        return np.array(self.drawn(pixels))

    def drawn(self, pixels: "Picture") -> "Picture":
        """Resize and crop a picture of mode RGB; return one of width x height pixels."""
        width, height = self._resized(*pixels.size)
        left, shown_width, gap_left = _placed(width, self.width)
        top, shown_height, gap_top = _placed(height, self.height)
        shown = (shown_width, shown_height)
        if width * height <= MOST_RESIZED:
            resized = pixels.resize((width, height), self.resampling)
            resized = resized.crop((left, top, left + shown_width, top + shown_height))
        else:
            across, down = pixels.width / width, pixels.height / height
            box = (
                left * across,
                top * down,
                min((left + shown_width) * across, pixels.width),
                min((top + shown_height) * down, pixels.height),
            )
            resized = pixels.resize(shown, self.resampling, box)
        if shown == (self.width, self.height):
            return resized
        fill = self.mean if self.crop_mode == "border" else (0.0,) * len(self.mean)
        red, green, blue = (round(255 * value) for value in fill)
        import PIL.Image

        canvas = PIL.Image.new("RGB", (self.width, self.height), (red, green, blue))
        canvas.paste(resized, (gap_left, gap_top))
        return canvas

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """Return the size that a picture is resized to, rounded as timm and torchvision do."""
        to_width = math.floor(self.width / self.crop_share)
        to_height = math.floor(self.height / self.crop_share)
        if self.crop_mode == "squash":
            return to_width, to_height
        if self.crop_mode != "border" and to_width == to_height:
            if width <= height:
                return to_width, int(to_width * height / width)
            return int(to_height * width / height), to_height
        choose = max if self.crop_mode == "border" else min
        ratio = choose(height / to_height, width / to_width)
        return max(round(width / ratio), 1), max(round(height / ratio), 1)


def _placed(side: int, wanted: int) -> tuple[int, int, int]:
    """Return where a centred crop of a side begins, how long it is, and the gap before it."""
    if side >= wanted:
        return round((side - wanted) / 2), wanted, 0
    return 0, side, (wanted - side) // 2
