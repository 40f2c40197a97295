"""A user's own image of a digit, converted to the form of MNIST's images.

The form is that of LeCun, Bottou, Bengio and Haffner, "Gradient-based learning
applied to document recognition" (1998), and yann.lecun.com/exdb/mnist: light
strokes on black, scaled to fit 20 x 20 pixels with their aspect ratio and grey
levels kept, then centred in a 28 x 28 field by their centre of mass. The
segmentation of the strokes is this project's own.
"""

from pathlib import Path
from typing import BinaryIO

import numpy as np
import scipy  # scipy.ndimage loads at its first use: it is slow to import
from PIL import Image, ImageFilter, ImageOps

from mnist_jax.images import checks, files
from mnist_jax.images.files import ImageError

FIELD = 28  # MNIST's image side
BOX = 20  # side of the digit's box in it
MIN_SIDE = 8
# In pixels of MNIST's box. Its strokes are 2.0 pixels wide and more; a fineliner's,
# scaled down, would be a grey thread that no classifier has seen.
THINNEST_STROKE = 2.1


class NoDigitError(ImageError):
    """An image in which no strokes were found, as a blank one."""


def read_image(
    file: str | Path | BinaryIO, shape: tuple[int, int] = (28, 28)
) -> np.ndarray:
    """Finds the digit in an image file and converts it to MNIST's form.

    Args:
      file: the path of a file in one of `files.FORMATS`, or that file opened, of any
        mode and at most `files.MAX_PIXELS`, with one digit on a plain background: ink
        on paper, chalk on a board, a drawing with transparency. Of several frames the
        first is read. `~` is the home folder.
      shape: height H and width W of the result, pixels.

    Returns:
      uint8 [H, W, 1], 0-255, light strokes on black.

    Raises:
      NoDigitError: it shows no strokes, or none that can be told from the ground.
      ImageError: the file is missing, damaged, too large, or shows more than a digit.
    """
    file = files.parse_file(file)
    path, image = files.name_of(file), files.read_grey(file)
    is_tiny = min(image.size) < MIN_SIDE
    if not is_tiny and checks.is_framed(image):
        raise ImageError(
            f"{path}: more than a digit found, such as a frame or a table around the "
            "paper: crop the picture to the digit on plain paper"
        )
    ink = None if is_tiny else _find_ink(image)
    if ink is None and not is_tiny and checks.has_colours(files.read_rgb(file)):
        raise NoDigitError(
            f"{path}: too little contrast in brightness, ink and paper differ in "
            "colour alone: write with a dark pen on light paper"
        )
    if ink is None:
        raise NoDigitError(
            f"{path}: no digit found, the image is blank, faint or tiny: write one "
            "digit with a dark pen on plain paper and take the picture in even light"
        )
    digit = _scale(ink, max(1, round(min(shape) * BOX / FIELD)))
    return _place(digit, shape)[..., None]


def _find_ink(image: Image.Image) -> np.ndarray | None:
    """The digit alone, float32 [height, width], 0-1; None where there is none."""
    grey = np.asarray(image, np.float32)
    background = _background(grey)
    # The strongest differences from the background are strokes, light or dark.
    contrast = (grey - background) / 255
    cube = contrast * contrast * contrast  # `**` is ten times as slow
    if np.sum(cube * cube * contrast) > 0:
        image, background = ImageOps.invert(image), 255 - background
    long_side = max(image.size)
    paper = _paper(_blur(image, long_side / 100), background, long_side // 4)
    # Light multiplies: the share that ink absorbs is the same in a shadow. `soft` is
    # thresholded, `sharp` gives the grey levels of the result.
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
    # Rounding errors are no ink: they would widen the bounding box.
    ink = np.where(_max_filter(digit, 3) & (ink > 0.02), ink, 0).astype(np.float32)
    return _thicken(ink, digit)


def _background(grey: np.ndarray) -> np.ndarray:
    """The tone of the background, fitted to the image's rim: float64 [height, width].

    A linear slope of the light plus a falloff with the squared distance from the
    middle (vignetting). Strokes may touch the rim, hence the least absolute error, by
    iteratively reweighted least squares.
    """
    rim = np.ones(grey.shape, bool)
    margin = max(1, min(grey.shape) // 50)
    rim[margin:-margin, margin:-margin] = False
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in grey.shape), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * x + y * y], axis=-1)
    of_rim, grey_of_rim = terms[rim], grey[rim]
    error = np.zeros(len(grey_of_rim))
    for _ in range(6):
        weight = 1 / np.sqrt(np.abs(error) + 2)
        factors, *_ = np.linalg.lstsq(of_rim * weight[:, None], grey_of_rim * weight)
        error = grey_of_rim - of_rim @ factors
    return terms @ factors


def _blur(image: Image.Image, radius: float) -> np.ndarray:
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float32)


def _paper(grey: np.ndarray, background: np.ndarray, size: int) -> np.ndarray:
    """`grey` with all that is dark and narrower than `size` filled from around it.

    A morphological closing: unlike a blur it follows the edge of a shadow. It would
    fill a slope of the light at the rim, hence relative to `background`.
    """
    background = np.maximum(background, 25)
    closed = scipy.ndimage.grey_closing(grey / background, _odd(size), mode="nearest")
    return np.maximum(closed * background, 12)


def _max_filter(values: np.ndarray, size: int) -> np.ndarray:
    return scipy.ndimage.maximum_filter(values, _odd(size), mode="nearest")


def _odd(size: int) -> int:
    """A window with a middle: `size`, or the next number where that is even."""
    return size // 2 * 2 + 1


def _main_parts(mask: np.ndarray, sure: np.ndarray) -> np.ndarray:
    """The connected parts of `mask` that hold much of `sure`: no specks, no shadows.

    Connected at a side of about 256 pixels, so that small gaps do not part a stroke.
    """
    step = -(-max(mask.shape) // 256)
    labels, num_labels = scipy.ndimage.label(_max_pool(mask, step), np.ones((3, 3)))
    areas = np.bincount(labels[_max_pool(sure, step)], minlength=num_labels + 1)
    kept = areas >= 0.1 * areas.max()
    kept[0] = False
    kept = kept[labels].repeat(step, 0).repeat(step, 1)
    return mask & kept[: mask.shape[0], : mask.shape[1]]


def _max_pool(mask: np.ndarray, step: int) -> np.ndarray:
    for axis, size in enumerate(mask.shape):
        mask = np.logical_or.reduceat(mask, np.arange(0, size, step), axis)
    return mask


def _thicken(ink: np.ndarray, digit: np.ndarray) -> np.ndarray:
    """Widens strokes that would be thinner than `THINNEST_STROKE`."""
    scale = BOX / (1 + max(np.ptp(indices) for indices in np.nonzero(digit)))
    inside = scipy.ndimage.binary_erosion(digit, np.ones((3, 3)))
    stroke = 2 * scale * digit.sum() / (digit.sum() - inside.sum())
    radius = max(0, round((THINNEST_STROKE - stroke) / scale / 2))
    return _max_filter(np.pad(ink, radius), 2 * radius + 1)


def _scale(ink: np.ndarray, box: int) -> np.ndarray:
    """Crops to the strokes and scales their longer side to `box` pixels."""
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = (max(1, round(n * box / max(ink.shape))) for n in ink.shape)
    image = Image.fromarray(ink)
    return np.asarray(image.resize((width, height), Image.Resampling.HAMMING))


def _place(digit: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """uint8 `shape` with the centre of mass at its centre, to half a pixel."""
    corner = []
    for axis, size in enumerate(shape):
        mass = digit.sum(1 - axis)
        centre = mass @ np.arange(len(mass)) / mass.sum()
        start = int(np.ceil(size / 2 - 0.5 - centre))
        corner.append(min(max(start, 0), size - len(mass)))
    field = np.zeros(shape, np.uint8)
    rows, columns = (slice(a, a + n) for a, n in zip(corner, digit.shape, strict=True))
    field[rows, columns] = np.round(255 * digit / digit.max())  # as bright as MNIST
    return field
