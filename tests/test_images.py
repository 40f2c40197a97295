"""A person's images: found, turned, cropped and centred as MNIST's were."""

import gzip
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits

from mnist_jax.images import ImageError, read_image

_IN_ONE_FOLDER = [HealthCheck.function_scoped_fixture]


def _seven(side=300, corner=(60, 40), size=100, ink=30, paper=230, mode="L"):
    """A drawn 7 of `size` x 0.6 `size` pixels on a square of plain paper."""
    image = Image.new(mode, (side, side), paper)
    x, y = corner
    bend = (x + 0.6 * size, y)
    lines = [(x, y), bend, (x + 0.2 * size, y + size)]
    ImageDraw.Draw(image).line(lines, fill=ink, width=size // 8, joint="curve")
    return image


def _read(image, path, **options):
    image.save(path, **options)
    return read_image(path)[..., 0].astype(float)


def _distance(a, b):
    """Mean difference of pixels, relative to the mean brightness of `b`."""
    return np.abs(a - b).mean() / b.mean()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "digit.png"


@pytest.fixture
def seven(tmp_path):
    return _read(_seven(), tmp_path / "seven.png")


def test_result_is_light_strokes_on_black_in_mnist_form(path):
    _seven().save(path)
    image = read_image(path)
    assert (image.shape, image.dtype) == ((28, 28, 1), np.uint8)
    assert image.max() == 255
    assert (image == 0).mean() > 0.6
    assert max(np.ptp(axis) + 1 for axis in np.nonzero(image[..., 0])) == 20
    mass = image[..., 0] / image.sum()
    centre = [mass.sum(1) @ np.arange(28), mass.sum(0) @ np.arange(28)]
    np.testing.assert_allclose(centre, 14, atol=0.51)


def test_strokes_keep_their_places(seven):
    rows, columns = np.nonzero(seven)
    top, bottom = seven[rows.min() + 1], seven[rows.max() - 1]
    assert (top > 128).sum() >= 9  # the bar
    assert 1 <= (bottom > 128).sum() <= 4  # the foot
    assert np.flatnonzero(bottom > 128).mean() < columns.mean() + 1


@pytest.mark.parametrize(
    "drawing",
    [
        dict(ink=230, paper=30),
        dict(corner=(190, 170)),
        dict(side=1500, corner=(900, 200)),
        dict(side=1200, corner=(240, 160), size=400),
        dict(side=150, corner=(30, 20), size=48),
        dict(ink=150, paper=200),
        dict(side=3000, corner=(2000, 1500), size=400),
    ],
    ids=["inverted", "moved", "far", "large", "small", "pale", "huge"],
)
def test_polarity_place_size_and_contrast_do_not_matter(path, seven, drawing):
    # A stroke an eighth as wide as the digit moves by less than half of itself.
    assert _distance(_read(_seven(**drawing), path), seven) < 0.3


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK", "P", "1", "LA", "I;16", "F"])
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
    image = _read(turned, tmp_path / "photo.jpg", exif=exif, quality=95)
    assert _distance(image, seven) < 0.2


def test_phone_photo_reads_like_the_clean_drawing(tmp_path, seven):
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:600j, -1:1:600j]
    shadow = 0.6 + 0.4 / (1 + np.exp((x + 0.5 * y - 0.3) / 0.05))
    light = shadow * (1 - 0.3 * (x * x + y * y) / 2)
    drawn = np.asarray(_seven(600, (150, 250), 150), float)
    photo = np.clip(drawn * light + rng.normal(0, 8, drawn.shape), 0, 255)
    photo = Image.fromarray(photo.astype(np.uint8))
    for name, image in (("dark.jpg", photo), ("light.jpg", photo.point(_invert))):
        assert _distance(_read(image, tmp_path / name, quality=60), seven) < 0.35


def _invert(value):
    return 255 - value


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


def test_digits_in_disguise_are_recognised_by_their_neighbours(path):
    digits = load_digits()
    rng = np.random.default_rng(0)
    known, disguised = [], []
    for i, image in enumerate(digits.images[:500]):
        image = Image.fromarray((image * 15.9).astype(np.uint8))
        if i < 400:
            known.append(_read(image.resize((80, 80), Image.Resampling.BICUBIC), path))
            continue
        side = int(rng.integers(60, 200))
        ink = np.zeros((300, 400))
        top, left = rng.integers(0, 300 - side), rng.integers(0, 400 - side)
        large = image.resize((side, side), Image.Resampling.BICUBIC)
        ink[top : top + side, left : left + side] = large
        slope = np.linspace(0.5, 1, 400) + rng.normal(0, 0.03, ink.shape)
        photo = np.clip(220 * slope * (1 - ink / 350), 0, 255)
        disguised.append(_read(Image.fromarray(photo.astype(np.uint8)), path))
    known, disguised = (np.reshape(x, (len(x), -1)) for x in (known, disguised))
    nearest = ((disguised[:, None] - known) ** 2).sum(-1).argmin(1)
    right = digits.target[:400][nearest] == digits.target[400:500]
    assert right.mean() >= 0.93


def test_mnist_images_come_out_nearly_unchanged(path, mnist_raw_dir):
    with gzip.open(mnist_raw_dir / "t10k-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(16 + 784 * 100), np.uint8, offset=16)
    difference = [
        np.abs(_read(Image.fromarray(image), path) - image).mean()
        for image in images.reshape(-1, 28, 28)
    ]
    assert np.median(difference) < 0.5
    assert np.mean(difference) < 1.5


def _png_header(width, height):
    """The start of a PNG that claims `width` x `height` pixels and holds none."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 1) + b"IDAT"


def _png(path, **drawing):
    _seven(**drawing).save(path)
    return path.read_bytes()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda path: None, "no such file"),
        (lambda path: b"", "empty"),
        (lambda path: b"digit: seven\n", "cannot be read as an image"),
        (lambda path: _png(path)[:300], "cannot be read as an image"),
        (lambda path: _png_header(8_000, 7_000), "50 megapixels"),
        (lambda path: _png_header(12_000, 10_000), "50 megapixels"),
        (lambda path: _png_header(100_000, 100_000), "50 megapixels"),
        (lambda path: _png(path, ink=230), "blank"),
        (lambda path: _png(path, side=7, ink=0), "too small"),
    ],
    ids="missing empty text truncated over warned bomb blank tiny".split(),
)
def test_unusable_file_is_refused_in_one_line(path, make, message):
    content = make(path)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageError, match=message) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folder_is_refused_in_one_line(tmp_path):
    with pytest.raises(ImageError, match="a folder"):
        read_image(tmp_path)


@pytest.mark.parametrize("tone", [0, 128, 255])
def test_blank_noisy_paper_is_refused(path, tone):
    y, _ = np.mgrid[0:1:300j, 0:1:400j]
    noise = np.random.default_rng(0).normal(0, 10, y.shape)
    paper = np.clip(tone * (1 - 0.3 * y) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(paper).save(path)
    with pytest.raises(ImageError, match="blank"):
        read_image(path)


@settings(max_examples=200, deadline=None, suppress_health_check=_IN_ONE_FOLDER)
@given(
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"P5 9 9"]),
    st.binary(max_size=300),
)
def test_no_bytes_raise_anything_but_image_error(tmp_path, start, rest):
    path = tmp_path / "bytes"
    path.write_bytes(start + rest)
    try:
        image = read_image(path)
    except ImageError as error:
        assert "\n" not in str(error)
    else:
        assert (image.shape, image.dtype) == ((28, 28, 1), np.uint8)


_SIDES = st.integers(1, 40)
_ARRAYS = st.tuples(_SIDES, _SIDES, st.sampled_from([(), (2,), (3,), (4,)])).flatmap(
    lambda shape: hnp.arrays(np.uint8, (*shape[:2], *shape[2]))
)


@settings(max_examples=200, deadline=None, suppress_health_check=_IN_ONE_FOLDER)
@given(_ARRAYS)
def test_any_small_array_gives_an_image_or_an_image_error(tmp_path, array):
    path = tmp_path / "array.png"
    Image.fromarray(array).save(path)
    try:
        image = read_image(path)
    except ImageError as error:
        assert "\n" not in str(error)
    else:
        assert (image.shape, image.dtype) == ((28, 28, 1), np.uint8)
        assert image.max() > 100
