"""Any bytes, images and settings: they serve, or are refused in one line."""

import gzip
import io
import json
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from runs_of_launch import assert_same_bits
from small_data import idx_bytes

from mnist_jax import models
from mnist_jax.config import SETTINGS, Config, ConfigError, make_config
from mnist_jax.data import DatasetError, idx
from mnist_jax.images import ImageError, read_image
from mnist_jax.storage.checkpoints import CheckpointError, Checkpoints


def bounded(max_examples):
    """Settings for a test whose fixtures may serve all examples."""
    unharmed = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(
        deadline=None, max_examples=max_examples, suppress_health_check=unharmed
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


@st.composite
def damaged(draw, contents):
    """One of `contents` with bytes changed, cut off, put in or taken out."""
    content = bytearray(draw(contents))
    for _ in range(draw(st.integers(1, 4))):
        # Headers, where most can go wrong, are short.
        near = st.integers(0, min(40, len(content)))
        start = draw(near | st.integers(0, len(content)))
        kind = draw(st.sampled_from(["flip", "cut", "insert", "remove"]))
        if kind == "flip" and start < len(content):
            content[start] ^= draw(st.integers(1, 255))
        elif kind == "cut":
            del content[start:]
        elif kind == "insert":
            content[start:start] = draw(st.binary(max_size=20))
        else:
            del content[start : start + draw(st.integers(1, 20))]
    return bytes(content)


ARRAYS = st.one_of(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=n, max_dims=n, min_side=0))
    for n in (1, 3)
)
PACKERS = st.sampled_from([bytes, gzip.compress])


@bounded(100)
@given(ARRAYS, PACKERS)
def test_any_array_comes_back_from_its_idx_file(path, array, pack):
    path.write_bytes(pack(idx_bytes(array)))
    read = idx.read_array(path, array.ndim)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, array)
    with pytest.raises(DatasetError, match="in 2 dimensions"):
        idx.read_array(path, 2)


@bounded(150)
@given(
    damaged(st.builds(lambda array, pack: pack(idx_bytes(array)), ARRAYS, PACKERS))
    | st.builds(lambda content, pack: pack(content), st.binary(), PACKERS)
    | st.builds(bytes.__add__, st.sampled_from([b"\x1f\x8b\x08"]), st.binary()),
    st.sampled_from([1, 3]),
)
def test_any_bytes_are_read_or_refused_in_one_line(path, content, num_dims):
    path.write_bytes(content)
    try:
        array = idx.read_array(path, num_dims)
    except DatasetError as error:
        assert str(error).startswith(f"{path}: ") and "expected" in str(error)
        assert len(str(error).splitlines()) == 1
    else:
        assert (array.dtype, array.ndim) == (np.uint8, num_dims)


def assert_image_or_error(path, content):
    path.write_bytes(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a warning is a second line
            image = read_image(path)
    except ImageError as error:
        assert str(error).startswith(f"{path}: ")
        assert len(str(error).splitlines()) == 1
    else:
        assert (image.shape, image.dtype) == ((28, 28, 1), np.uint8)
        assert image.max() == 255


# Of each mode of Pillow's the formats that keep it.
MODES = {
    "1": "PNG TIFF BMP PPM", "L": "PNG JPEG GIF TIFF", "P": "PNG GIF BMP",
    "LA": "PNG TIFF", "RGB": "PNG JPEG WEBP PPM", "RGBA": "PNG WEBP TIFF",
    "CMYK": "JPEG TIFF", "YCbCr": "JPEG TIFF", "LAB": "TIFF", "I;16": "PNG TIFF PPM",
    "I": "TIFF", "F": "TIFF",
}  # fmt: skip
NUMBERS = {"I;16": np.uint16, "I": np.int32, "F": np.float32}


@st.composite
def pictures(draw):
    """The bytes of an image file: any mode, form and tones, with strokes or noise."""
    mode = draw(st.sampled_from(sorted(MODES)))
    height, width = draw(
        st.tuples(st.integers(1, 60), st.integers(1, 60))
        | st.tuples(st.integers(1, 12), st.integers(300, 900))
        | st.tuples(st.integers(300, 900), st.integers(1, 12))
    )
    dtype = np.dtype(NUMBERS.get(mode, np.uint8))
    tones = hnp.from_dtype(dtype)
    bands = len(Image.new(mode, (1, 1)).getbands())
    values = np.empty((height, width, bands), dtype)
    values[...] = draw(st.lists(tones, min_size=bands, max_size=bands))
    for _ in range(draw(st.integers(0, 4))):
        top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        part = values[top : top + draw(st.integers(1, 30))]
        part[:, left : left + draw(st.integers(1, 30))] = draw(tones)
    if draw(st.booleans()):
        rng = np.random.default_rng(draw(st.integers(0, 99)))
        noise = rng.integers(0, 1 + draw(st.integers(0, 60)), values.shape)
        with np.errstate(all="ignore"):
            values = (values + noise).astype(dtype)
    if mode in NUMBERS:
        image = Image.fromarray(values[..., 0])
    elif mode == "1":
        image = Image.fromarray(values[..., 0]).convert("1")
    else:
        image = Image.frombytes(mode, (width, height), values.tobytes())
    file = io.BytesIO()
    image.save(file, draw(st.sampled_from(MODES[mode].split())))
    return file.getvalue()


@bounded(150)
@given(pictures())
def test_any_picture_gives_an_image_or_an_error(path, content):
    assert_image_or_error(path, content)


@bounded(80)
@given(damaged(pictures()))
def test_any_damaged_picture_gives_an_image_or_an_error(path, content):
    assert_image_or_error(path, content)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(2**63), 2**32, 0, 1])
    | st.floats()
    | st.text(max_size=9),
    lambda values: (
        st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=9), values)
    ),
    max_leaves=4,
)
NAMES = list(SETTINGS)


@st.composite
def almost_settings(draw):
    """The settings of a run, some of them replaced, left out or made up."""
    model = draw(st.sampled_from(list(models.MODELS)))
    found = make_config(model, "digits").to_dict()
    found |= draw(st.dictionaries(st.sampled_from(NAMES), JSON, max_size=2))
    for name in draw(st.lists(st.sampled_from(NAMES), max_size=1)):
        found.pop(name, None)
    return found | draw(st.just({}) | st.dictionaries(st.text(), JSON, max_size=1))


@bounded(300)
@given(almost_settings())
def test_any_json_object_gives_a_config_or_an_error(found):
    try:
        read = Config.from_dict(found)
    except ConfigError as error:
        assert len(str(error).splitlines()) == 1 and len(str(error)) < 400
    else:
        for one in SETTINGS.values():
            value = getattr(read, one.name)
            if value is not None:
                one.check(value)
        assert Config.from_dict(json.loads(json.dumps(read.to_dict()))) == read


def values(one):
    """All that a setting may be."""
    if one.choices:
        return st.sampled_from(one.choices)
    if one.kind is str:
        return st.text().filter(str.isprintable)
    if one.kind is bool:
        return st.booleans()
    if one.kind is float:
        high = one.high if one.below is None else one.below
        open_above = one.below is not None
        return st.floats(one.low, high, exclude_max=open_above)
    whole = st.integers(one.low, one.high)
    if one.kind is tuple:
        return st.lists(whole, min_size=1, max_size=5).map(tuple)
    return whole


@pytest.mark.parametrize("model", models.MODELS)
@bounded(15)
@given(data=st.data())
def test_any_settings_in_range_come_back_from_json(model, data):
    names = [
        name
        for name, one in SETTINGS.items()
        if name not in ("model", "dataset", "preset", "preprocess")  # not of mnist
        and model in (one.models or [model])
    ]
    strategies = {name: values(SETTINGS[name]) for name in names}
    given = data.draw(st.fixed_dictionaries({}, optional=strategies))
    made = make_config(model, "mnist", **given)
    for name, value in given.items():
        assert getattr(made, name) == value
    assert Config.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    assert models.make_model(model, 10, **made.model_settings())


IDENTITY = {"model": "linear"}
TRAINING = {"step": np.int32(7), "history": {"loss": np.ones(4, np.float32)}}
TEMPLATES = (
    {"w": np.zeros((2, 3), np.float32)},
    {"step": np.int32(0), "history": {"loss": np.zeros(4, np.float32)}},
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """(the only checkpoint's folder, its content)."""
    workdir = tmp_path_factory.mktemp("fuzz")
    params = {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}
    epochs = [{"epoch": 1, "train_loss": 0.5}]
    with Checkpoints(workdir, IDENTITY) as checkpoints:
        checkpoints.save(7, params, TRAINING, epochs)
    return workdir / "checkpoints/7", (params, TRAINING, epochs)


@bounded(60)
@given(
    key=st.sampled_from(
        ["schema", "layout", "identity", "history", "sha256", "epochs", "other"]
    ),
    value=JSON,
)
def test_a_record_of_other_kinds_gives_the_same_bits_or_a_line(checkpoint, key, value):
    folder, content = checkpoint
    path = folder / "record/metadata"
    before = path.read_bytes()
    path.write_text(json.dumps({**json.loads(before), key: value}))
    try:
        with Checkpoints(folder.parents[1], IDENTITY, read_only=True) as checkpoints:
            assert_same_bits(checkpoints.restore(*TEMPLATES), content)
    except CheckpointError as error:
        assert "\n" not in str(error) and str(folder) in str(error)
    finally:
        path.write_bytes(before)
