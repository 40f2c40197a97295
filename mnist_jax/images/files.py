"""A user's image file, opened with care: its format, size and mode are anything."""

import stat
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from mnist_jax.errors import UserError

# The formats that users have; others start programs (EPS) or are never photos.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm")
SUFFIXES += (".pgm", ".pbm", ".pnm")
MAX_PIXELS = 50_000_000
# Of a picture's size, which is checked here, and of odd metadata. For good, as files
# are read by threads, and `warnings.catch_warnings` is not for these.
warnings.filterwarnings("ignore", module=r"PIL\.")
WORKING_SIDE = 768  # a digit of a thirtieth of the photo still has 25 pixels


class ImageError(UserError):
    """An image file that cannot be used."""


def read_grey(file: Path | BinaryIO) -> Image.Image:
    """The image upright, mode 'L', its longer side at most `WORKING_SIDE`.

    Args:
      file: its path, or an open file, which is read from its start.

    Raises:
      ImageError: the file is missing, damaged or too large.
    """
    return _read(file, _to_grey)


def read_rgb(file: Path | BinaryIO) -> Image.Image:
    """As `read_grey`, but mode 'RGB'."""
    return _read(file, _to_rgb)


def name_of(file: Path | BinaryIO) -> str:
    """As messages call it."""
    return str(file) if isinstance(file, Path) else getattr(file, "name", "the image")


def _read(
    file: Path | BinaryIO, convert: Callable[[Image.Image], Image.Image]
) -> Image.Image:
    path = name_of(file)
    try:
        if isinstance(file, Path):
            _check_file(file)
        else:
            file.seek(0)
        with Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            converted = convert(ImageOps.exif_transpose(image))
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file: check name and folder") from None
    except Image.DecompressionBombError:
        raise ImageError(
            f"{path}: more than {MAX_PIXELS // 1_000_000} megapixels: crop it to the "
            "digit, or save it smaller"
        ) from None
    except Exception as error:  # every decoder has errors of its own
        if reason := getattr(error, "strerror", None):  # the system's, not a decoder's
            raise ImageError(
                f"{path}: cannot be opened ({reason}): check name, folder and rights"
            ) from error
        raise ImageError(
            f"{path}: cannot be read as an image ({type(error).__name__}): it is "
            f"damaged or none of {', '.join(FORMATS)}; save it again as PNG"
        ) from error
    return converted.reduce(-(-max(converted.size) // WORKING_SIDE))


def _check_file(path: Path) -> None:
    if stat.S_ISDIR(mode := path.stat().st_mode):
        raise ImageError(f"{path}: a folder: name the image files in it")
    if not stat.S_ISREG(mode):
        raise ImageError(f"{path}: a device, no file: save the image as a file")
    if path.stat().st_size == 0:
        raise ImageError(f"{path}: the file is empty: save or copy it again")


def _to_grey(image: Image.Image) -> Image.Image:
    """Any mode to mode 'L'; what is transparent takes a tone that sets strokes off."""
    if image.mode[0] in "IF":  # 16 and 32 bits: convert() would clip them at 255
        values = np.nan_to_num(np.asarray(image, np.float64), posinf=0, neginf=0)
        values -= values.min()
        values *= 255 / max(values.max(), 1e-9)
        return Image.fromarray(values.astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB").convert("L")
    image = image.convert("RGBA")
    grey, alpha = image.convert("RGB").convert("L"), image.getchannel("A")
    seen = np.asarray(grey)[np.asarray(alpha) > 127]
    if not seen.size:
        return Image.new("L", image.size)
    # A stroke on nothing needs a ground to show on, but a photo that is only cut
    # out should not have its outline taken for a stroke.
    some = seen[:: 1 + seen.size // 1_000_000]
    low, tone, high = np.quantile(some, (0.002, 0.5, 0.998))
    if 2 * seen.size < image.width * image.height or high - low < 25:
        tone = 255 if tone < 128 else 0
    return Image.composite(grey, Image.new("L", image.size, int(tone)), alpha)


def _to_rgb(image: Image.Image) -> Image.Image:
    is_grey = image.mode[0] in "IF"  # of 16 or 32 bits
    return Image.new("RGB", image.size) if is_grey else image.convert("RGB")


def parse_file(file: str | Path | BinaryIO) -> Path | BinaryIO:
    """What a person gave: a path with `~` expanded, or an opened file as it is."""
    return expand_user(Path(file)) if isinstance(file, str | Path) else file


def expand_user(path: Path) -> Path:
    """With `~` as the home folder; as it is where no one has such a home."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path
