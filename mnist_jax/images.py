"""A person's own picture of a digit, brought into the form of MNIST's images.

The form is that of LeCun, Bottou, Bengio and Haffner, "Gradient-based learning
applied to document recognition" (1998), and yann.lecun.com/exdb/mnist: light
strokes on black, scaled to fit 20 x 20 pixels with their shape and grey levels
kept, then moved in a 28 x 28 field until their centre of mass is at its centre.
How the strokes are found in a photograph is our own.
"""

import stat
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps

# The formats that people have; others start programs (EPS) or are never photos.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
MAX_PIXELS = 50_000_000
FIELD = 28
BOX = 20
MIN_SIDE = 8
WORKING_SIDE = 768  # a digit of a thirtieth of the photo still has 25 pixels
# In pixels of the box. MNIST's strokes measure 2.0 and more; a fineliner's, scaled
# down, would be a grey thread that no classifier has seen.
THINNEST_STROKE = 2.1


class ImageError(Exception):
    """An image that cannot be used; the message is one line with the remedy."""


def read_image(path: str | Path) -> np.ndarray:
    """Finds the digit in an image file and gives it MNIST's form.

    Args:
      path: a file in one of `FORMATS`, of any mode and at most `MAX_PIXELS`, with
        one digit on a plain ground: ink on paper, chalk on a board, a drawing with
        transparency. Of several frames the first counts.

    Returns:
      uint8 [28, 28, 1], 0-255, light strokes on black.

    Raises:
      ImageError: the file is missing, damaged, too large, or shows no strokes.
    """
    path = Path(path)
    image = _read_grey(path)
    ink = _find_ink(image) if min(image.size) >= MIN_SIDE else None
    if ink is None:
        raise ImageError(
            f"{path}: no digit found, the image is blank, faint or tiny: write one "
            "digit with a dark pen on plain paper and take the picture in even light"
        )
    return _place(_scale(ink))[..., None]


def _read_grey(path: Path) -> Image.Image:
    """The image upright, mode 'L', its longer side at most `WORKING_SIDE`."""
    try:
        if stat.S_ISDIR(mode := path.stat().st_mode):
            raise ImageError(f"{path}: a folder: name the image files in it")
        if not stat.S_ISREG(mode):
            raise ImageError(f"{path}: a device, no file: save the image as a file")
        if path.stat().st_size == 0:
            raise ImageError(f"{path}: the file is empty: save or copy it again")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the header's size is checked below
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                grey = _to_grey(ImageOps.exif_transpose(image))
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
    return grey.reduce(-(-max(grey.size) // WORKING_SIDE))


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


def _find_ink(image: Image.Image) -> np.ndarray | None:
    """The digit alone, float32 [height, width], 0-1; None where there is none."""
    grey = np.asarray(image, np.float32)
    ground = _ground(grey)
    # The strongest differences from the ground are strokes, light or dark.
    if np.sum(((grey - ground) / 255) ** 7) > 0:
        image, ground = ImageOps.invert(image), 255 - ground
    long_side = max(image.size)
    paper = _paper(_blur(image, long_side / 100), ground, long_side // 4)
    # Light multiplies, so the share that the ink takes from it is the same in a
    # shadow. Soft is for decisions, sharp for the strokes that are handed on.
    soft = 1 - _blur(image, long_side / 400) / paper
    sharp = 1 - np.asarray(image, np.float32) / paper
    level = np.quantile(soft, 0.2)
    lag = 1 + long_side // 200
    noise = np.median(np.abs(soft[lag:, lag:] - soft[:-lag, :-lag]))
    peak = soft.max() - level
    if peak < max(0.1, 8 * noise):
        return None
    faint = soft > level + max(0.3 * peak, 4 * noise)
    digit = _main_parts(faint, soft > level + 0.5 * peak)
    full = np.quantile(soft[digit], 0.75)
    ink = np.clip((sharp - level) / (full - level), 0, 1)
    # Rounding errors are no ink: they would widen the box.
    ink = np.where(_dilate(digit, 3) & (ink > 0.02), ink, 0).astype(np.float32)
    return _thicken(ink, digit)


def _ground(grey: np.ndarray) -> np.ndarray:
    """The tone of the ground, as far as the image's rim tells.

    Light that slopes, and that falls off with the square of the distance from the
    middle (vignetting). The fit has the least absolute error, by reweighting, for
    strokes may touch the rim.
    """
    rim = np.ones(grey.shape, bool)
    margin = max(1, min(grey.shape) // 50)
    rim[margin:-margin, margin:-margin] = False
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in grey.shape), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * x + y * y], axis=-1)
    error = np.zeros(rim.sum())
    for _ in range(6):
        weight = 1 / np.sqrt(np.abs(error) + 2)
        factors, *_ = np.linalg.lstsq(terms[rim] * weight[:, None], grey[rim] * weight)
        error = grey[rim] - terms[rim] @ factors
    return terms @ factors


def _blur(image: Image.Image, radius: float) -> np.ndarray:
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float32)


def _paper(grey: np.ndarray, ground: np.ndarray, size: int) -> np.ndarray:
    """`grey` with all that is dark and narrower than `size` filled from around it.

    A morphological closing: unlike a blur it follows the edge of a shadow. It would
    fill a slope of the light at the rim, hence relative to `ground`.
    """
    ground = np.maximum(ground, 25)
    closed = -_dilate(-_dilate(grey / ground, size), size)
    return np.maximum(closed * ground, 12)


def _dilate(values: np.ndarray, size: int) -> np.ndarray:
    """The largest value in the square of `size` pixels, made odd, around each."""
    for axis in (0, 1):
        pads = [(0, 0), (0, 0)]
        pads[axis] = (size // 2, size // 2)
        values = np.moveaxis(np.pad(values, pads, "edge"), axis, 0)
        width, full = 1, size // 2 * 2 + 1
        while width < full:
            step = min(width, full - width)
            values = np.maximum(values[:-step], values[step:])
            width += step
        values = np.moveaxis(values, 0, axis)
    return values


def _main_parts(mask: np.ndarray, sure: np.ndarray) -> np.ndarray:
    """The connected parts of `mask` that hold much of `sure`: no specks, no shadows."""
    step = -(-max(mask.shape) // 256)
    labels = _label(_pool(mask, step))
    areas = np.bincount(labels[_pool(sure, step)], minlength=labels.max() + 1)
    kept = areas >= 0.1 * areas.max()
    kept[0] = False
    kept = kept[labels].repeat(step, 0).repeat(step, 1)
    return mask & kept[: mask.shape[0], : mask.shape[1]]


def _pool(mask: np.ndarray, step: int) -> np.ndarray:
    height, width = (-(-n // step) for n in mask.shape)
    whole = np.zeros((height * step, width * step), bool)
    whole[: mask.shape[0], : mask.shape[1]] = mask
    return whole.reshape(height, step, width, step).any((1, 3))


def _label(mask: np.ndarray) -> np.ndarray:
    """One number above 0 for each connected part of `mask`, 0 outside."""
    labels = np.where(mask, 1 + np.arange(mask.size).reshape(mask.shape), 0)
    while True:
        largest = np.where(mask, _dilate(labels, 3), 0)
        # A label is a pixel's position too; taking that pixel's own label halves
        # the way that is left, where passing it on goes one pixel at a time.
        jumped = np.where(mask, largest.ravel()[largest - 1], 0)
        if np.array_equal(jumped, labels):
            return labels
        labels = jumped


def _thicken(ink: np.ndarray, digit: np.ndarray) -> np.ndarray:
    """Widens strokes that would be thinner than `THINNEST_STROKE` in the box."""
    scale = BOX / (1 + max(np.ptp(places) for places in np.nonzero(digit)))
    inside = ~_dilate(~np.pad(digit, 1), 3)
    stroke = 2 * scale * digit.sum() / (digit.sum() - inside.sum())
    radius = max(0, round((THINNEST_STROKE - stroke) / scale / 2))
    return _dilate(np.pad(ink, radius), 2 * radius + 1)


def _scale(ink: np.ndarray) -> np.ndarray:
    """Crops to the strokes and scales their longer side to `BOX` pixels."""
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = (max(1, round(n * BOX / max(ink.shape))) for n in ink.shape)
    image = Image.fromarray(ink)
    return np.asarray(image.resize((width, height), Image.Resampling.HAMMING))


def _place(digit: np.ndarray) -> np.ndarray:
    """uint8 [28, 28] with the centre of mass at (14, 14), to half a pixel."""
    corner = []
    for axis in (0, 1):
        mass = digit.sum(1 - axis)
        centre = mass @ np.arange(len(mass)) / mass.sum()
        start = int(np.ceil(FIELD / 2 - 0.5 - centre))
        corner.append(min(max(start, 0), FIELD - len(mass)))
    field = np.zeros((FIELD, FIELD), np.uint8)
    rows, columns = (slice(a, a + n) for a, n in zip(corner, digit.shape, strict=True))
    field[rows, columns] = np.round(255 * digit / digit.max())  # as bright as MNIST
    return field
