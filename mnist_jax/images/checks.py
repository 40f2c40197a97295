"""Why a user's picture shows no digit that can be found: a frame, or colours alone."""

import numpy as np
import scipy  # scipy.ndimage loads at its first use: it is slow to import
from PIL import Image, ImageFilter

_SIDE = 384  # pixels; enough to see a frame


def is_framed(image: Image.Image) -> bool:
    """Whether the digit's paper is a rectangle in another: a frame, or a table below.

    Args:
      image: mode 'L', dark on light or light on dark.

    Returns:
      False for a digit alone, whichever it is: none is a filled rectangle with marks.
    """
    grey = np.asarray(image.reduce(-(-max(image.size) // _SIDE)), np.float32)
    low, high = np.quantile(grey, (0.005, 0.995))
    dark = grey < (low + high) / 2
    return high - low > 60 and (_frames(dark) or _frames(~dark))


def _frames(mask: np.ndarray) -> bool:
    """Whether the widest part of `mask`, bool [H, W], encloses a marked rectangle."""
    box, frame = _widest_part(mask)
    if not _reaches_all_sides(frame):
        return False
    inside = scipy.ndimage.binary_fill_holes(frame) & ~frame & ~mask[box]
    _, paper = _widest_part(inside)
    sheet = scipy.ndimage.binary_fill_holes(paper)
    return bool(
        paper.size >= 0.15 * frame.size
        and sheet.mean() >= 0.85  # of a 0 it is 0.8: its corners are round
        and paper.mean() >= 0.7
        and (sheet & ~paper).mean() >= 0.005
    )


def _widest_part(mask: np.ndarray) -> tuple[tuple[slice, slice], np.ndarray]:
    """The connected part with the largest bounding box: (that box, bool of its shape).

    Of an empty mask it is one pixel.
    """
    labels, _ = scipy.ndimage.label(mask, np.ones((3, 3)))
    boxes = scipy.ndimage.find_objects(labels) or [(slice(0, 1), slice(0, 1))]
    sizes = [np.prod([side.stop - side.start for side in box]) for box in boxes]
    number = int(np.argmax(sizes))
    return boxes[number], labels[boxes[number]] == number + 1


def _reaches_all_sides(mask: np.ndarray) -> bool:
    """Whether nine tenths of each side, bool [H, W], are covered, also if tilted."""
    height, width = (max(1, size // 12) for size in mask.shape)
    sides = mask[:height], mask[-height:], mask[:, :width].T, mask[:, -width:].T
    return min(side.any(0).mean() for side in sides) >= 0.9


def has_colours(image: Image.Image) -> bool:
    """Whether there are clearly different colours, as of ink and paper.

    Args:
      image: mode 'RGB'.
    """
    smooth = image.filter(ImageFilter.GaussianBlur(max(image.size) / 200))
    colours = np.asarray(smooth.convert("YCbCr"))[..., 1:].reshape(-1, 2)
    low, high = np.quantile(colours, (0.002, 0.998), axis=0)
    return bool((high - low).max() > 40)
