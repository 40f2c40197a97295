"""A user's images: segmented, turned, cropped and centred as MNIST's were."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageDraw, ImageOps
from sklearn.datasets import load_digits

from mnist_jax.data import idx
from mnist_jax.errors import UserError
from mnist_jax.images import ImageError, read_image


def _seven(side=300, corner=(60, 40), size=100, ink=30, paper=230):
    """A drawn 7 of `size` x 0.6 `size` pixels on a square of plain paper."""
    image = Image.new("L", (side, side), paper)
    x, y = corner
    lines = [(x, y), (x + 0.6 * size, y), (x + 0.2 * size, y + size)]
    ImageDraw.Draw(image).line(lines, fill=ink, width=size // 8, joint="curve")
    return image


def _read(image, path, **options):
    image.save(path, **options)
    return read_image(path)[..., 0].astype(float)


def _distance(a, b):  # relative to the brightness of b
    return np.abs(a - b).mean() / b.mean()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "digit.png"


@pytest.fixture
def seven(tmp_path):
    return _read(_seven(), tmp_path / "seven.png")


@pytest.mark.parametrize("shape, box", [((28, 28), 20), ((20, 24), 14), ((56, 42), 30)])
def test_result_is_light_strokes_on_black_in_mnist_form(path, shape, box):
    _seven().save(path)
    image = read_image(path, shape)
    assert (image.shape, image.dtype) == ((*shape, 1), np.uint8)
    assert image.max() == 255
    assert (image == 0).mean() > 0.6
    rows, columns, _ = np.nonzero(image)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == box
    mass = image[..., 0] / image.sum()
    centre = [mass.sum(1) @ np.arange(shape[0]), mass.sum(0) @ np.arange(shape[1])]
    np.testing.assert_allclose(centre, np.array(shape) / 2, atol=0.51)


def test_digit_stands_upright(seven):
    rows, _ = np.nonzero(seven)
    assert (seven[rows.min() + 1] > 128).sum() >= 9  # the bar
    assert 1 <= (seven[rows.max() - 1] > 128).sum() <= 4  # the foot


@pytest.mark.parametrize(
    "drawing",
    [
        dict(ink=230, paper=30),
        dict(corner=(190, 170), ink=150, paper=200),
        dict(side=1500, corner=(900, 200)),
        dict(side=150, corner=(30, 20), size=48),
        dict(side=3000, corner=(2000, 1500), size=400),
    ],
    ids=["inverted", "pale", "far", "small", "huge"],
)
def test_polarity_place_size_and_contrast_do_not_matter(path, seven, drawing):
    # A stroke an eighth as wide as the digit moves by less than half of itself.
    assert _distance(_read(_seven(**drawing), path), seven) < 0.3


@pytest.mark.parametrize("mode", "RGB RGBA CMYK P 1 LA I;16 F".split())
@pytest.mark.parametrize("polarity", [0, 255])
def test_every_mode_reads_like_greyscale(path, seven, mode, polarity):
    grey = np.abs(np.asarray(_seven(ink=0, paper=255), np.int32) - polarity)
    if mode == "I;16":
        image = Image.fromarray((grey * 257).astype(np.uint16))
    else:
        image = Image.fromarray(grey.astype(np.uint8)).convert(mode)
    path = path.with_suffix(".tiff" if mode in ("CMYK", "F") else ".png")
    assert _distance(_read(image, path), seven) < 0.2


@pytest.mark.parametrize("ink", [0, 255])
def test_strokes_on_transparency_are_found_whatever_their_tone(path, seven, ink):
    alpha = _seven(ink=255, paper=0)
    image = Image.new("RGBA", alpha.size, (ink, ink, ink, 0))
    image.putalpha(alpha)
    assert _distance(_read(image, path), seven) < 0.2


def test_cut_out_photo_does_not_become_a_stroke(path, seven):
    image = _seven().convert("RGBA")
    disc = Image.new("L", image.size, 0)
    ImageDraw.Draw(disc).ellipse((5, 5, 295, 295), fill=255)
    image.putalpha(disc)
    assert _distance(_read(image, path), seven) < 0.2


def test_exif_orientation_is_obeyed(tmp_path, seven):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned a quarter clockwise
    turned = _seven().transpose(Image.Transpose.ROTATE_90)
    photo = _read(turned, tmp_path / "photo.jpg", exif=exif, quality=95)
    assert _distance(photo, seven) < 0.2


def test_phone_photo_reads_like_the_clean_drawing(tmp_path, seven):
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:600j, -1:1:600j]
    shadow = 0.6 + 0.4 / (1 + np.exp((x + 0.5 * y - 0.3) / 0.05))
    light = shadow * (1 - 0.3 * (x * x + y * y) / 2)
    drawn = np.asarray(_seven(600, (150, 250), 150), float)
    photo = np.clip(drawn * light + rng.normal(0, 8, drawn.shape), 0, 255)
    photo = Image.fromarray(photo.astype(np.uint8))
    for image in (photo, ImageOps.invert(photo)):
        assert _distance(_read(image, tmp_path / "a.jpg", quality=60), seven) < 0.35


def test_specks_are_left_out_and_broken_strokes_kept(path, seven):
    image = _seven()
    pen = ImageDraw.Draw(image)
    for corner in ((250, 20), (20, 270), (280, 280)):
        pen.rectangle((*corner, corner[0] + 3, corner[1] + 3), fill=30)
    assert _distance(_read(image, path), seven) < 0.1
    pen.line((60, 90, 180, 90), fill=230, width=4)
    assert _distance(_read(image, path), seven) < 0.4


def test_thread_thin_strokes_become_visible(path):
    image = Image.new("L", (400, 400), 255)
    ImageDraw.Draw(image).ellipse((100, 50, 300, 350), outline=0, width=3)
    digit = _read(image, path)
    # 3 of 300 pixels would be a fifth of a pixel in the box, so at most 51 bright.
    assert np.quantile(digit[digit > 0], 0.75) > 200
    assert digit[14, 14] == 0


@pytest.mark.slow
def test_digits_in_disguise_are_recognised_by_their_neighbours(path):
    digits = load_digits()
    rng = np.random.default_rng(0)
    read = []
    for i, image in enumerate(digits.images[:360]):
        known = i < 300
        side = 80 if known else int(rng.integers(60, 200))
        top, left = rng.integers(0, 300 - side), rng.integers(0, 400 - side)
        image = Image.fromarray((image * 15.9).astype(np.uint8))
        ink = Image.new("L", (400, 300))
        ink.paste(image.resize((side, side), Image.Resampling.BICUBIC), (left, top))
        slope = np.linspace(0.5, 1, 400) + rng.normal(0, 0.03, (300, 400))
        photo = np.clip(220 * slope * (1 - np.asarray(ink) / 350), 0, 255)
        read.append(_read(ink if known else Image.fromarray(np.uint8(photo)), path))
    read = np.reshape(read, (360, -1))
    nearest = ((read[300:, None] - read[:300]) ** 2).sum(-1).argmin(1)
    correct = digits.target[nearest] == digits.target[300:360]
    assert correct.mean() >= 0.93  # 0.98 on the untouched 8 x 8 pixels


@pytest.mark.parametrize("invert", [False, True])
def test_mnist_images_come_out_nearly_unchanged(path, mnist_raw_dir, invert):
    images = idx.read_array(idx.require(mnist_raw_dir)["test_images"], 3)[:100]
    read = [_read(Image.fromarray(x ^ 255 if invert else x), path) for x in images]
    difference = np.abs(read - images).mean((1, 2))
    assert np.median(difference) < 0.5
    assert difference.mean() < 1.5


def _png_header(width, height):
    """The start of a PNG that claims `width` x `height` pixels and holds none."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 1) + b"IDAT"


def _as_png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "no such file"),
        (Path.mkdir, "a folder"),
        (b"", "empty"),
        (b"digit: seven\n", "cannot be read as an image"),
        (_as_png(np.asarray(_seven()))[:300], "cannot be read as an image"),
        (_png_header(8_000, 7_000), "50 megapixels"),
        (_png_header(100_000, 100_000), "50 megapixels"),
        (_as_png(np.full((300, 300), 230, np.uint8)), "blank"),
        (_as_png(np.eye(7, dtype=np.uint8) * 255), "tiny"),
    ],
    ids="missing folder empty text truncated large bomb blank tiny".split(),
)
def test_unusable_file_is_refused_in_one_line(path, content, message):
    if callable(content):
        content(path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageError, match=message) as caught:
        read_image(path)
    assert isinstance(caught.value, UserError)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("tone", [0, 128, 255])
def test_blank_noisy_paper_is_refused(path, tone):
    y, _ = np.mgrid[0:1:300j, 0:1:400j]
    noise = np.random.default_rng(0).normal(0, 10, y.shape)
    paper = np.clip(tone * (1 - 0.3 * y) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(paper).save(path)
    with pytest.raises(ImageError, match="blank"):
        read_image(path)


def _frame(image, distance, width, tone=10):
    far = image.width - 1 - distance
    ImageDraw.Draw(image).rectangle(
        (distance, distance, far, far), outline=tone, width=width
    )
    return image


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("turned", [0, 3])
@pytest.mark.parametrize("distance, width", [(0, 8), (0, 60), (10, 3), (30, 15)])
def test_a_digit_in_a_frame_is_told(path, distance, width, turned, invert):
    image = _frame(_seven(corner=(110, 90)), distance, width)
    image = image.rotate(turned, Image.Resampling.BICUBIC, fillcolor=10)
    (ImageOps.invert(image) if invert else image).save(path)
    with pytest.raises(ImageError, match="more than a digit found.*: crop the picture"):
        read_image(path)


def test_strokes_that_are_rectangles_are_no_frames(path):
    zero = _frame(Image.new("L", (300, 300), 230), 60, 30)
    assert _read(zero, path)[14, 14] == 0
    eight = zero.copy()
    ImageDraw.Draw(eight).rectangle((60, 140, 240, 160), fill=10)
    for image in (eight, ImageOps.invert(zero), ImageOps.invert(eight)):
        assert _read(image, path).max() == 255
    one = Image.new("L", (300, 300), 230)
    ImageDraw.Draw(one).rectangle((120, 30, 180, 270), fill=30)
    assert _read(one, path)[14, 14] == 255


def test_ink_as_bright_as_its_paper_is_told(path):
    red, green = (220, 20, 20), (0, 136, 0)  # of 80 of 255 each
    strokes = _seven(ink=255, paper=0)
    Image.composite(
        Image.new("RGB", strokes.size, green), Image.new("RGB", strokes.size, red),
        strokes,
    ).save(path)  # fmt: skip
    with pytest.raises(ImageError, match="too little contrast in brightness.*: write"):
        read_image(path)


@pytest.mark.parametrize("mode", ["I;16", "RGBA", "CMYK"])
def test_blank_pictures_of_any_mode_are_called_blank(path, mode):
    path = path.with_suffix(".tiff")
    Image.new(mode, (60, 60)).save(path)
    with pytest.raises(ImageError, match="blank"):
        read_image(path)


_STARTS = [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"P5 9 9"]
_SIDE = st.integers(1, 40)
_SHAPES = st.tuples(_SIDE, _SIDE) | st.tuples(_SIDE, _SIDE, st.integers(2, 4))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.builds(bytes.__add__, st.sampled_from(_STARTS), st.binary(max_size=300))
    | _SHAPES.flatmap(lambda shape: hnp.arrays(np.uint8, shape)).map(_as_png)
)
def test_any_file_gives_an_image_or_an_image_error(path, content):
    path.write_bytes(content)
    try:
        image = read_image(path)
    except ImageError as error:
        assert "\n" not in str(error)
    else:
        assert (image.shape, image.dtype, image.max()) == ((28, 28, 1), np.uint8, 255)
