"""The server's routes, in this process; test_server.py starts it as a person does."""

import concurrent.futures
import io
import json
import socket
import threading

import numpy as np
import pytest
import requests
from PIL import Image, ImageDraw

from mnist_jax import predict, training
from mnist_jax.config import make_config
from mnist_jax.storage import records

pytest.importorskip("starlette")

from mnist_jax.serving import app, bodies, drawings  # noqa: E402
from mnist_jax.serving.served_run import ServedRun  # noqa: E402


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
    paths = []
    for name, settings in (("linear", {}), ("gru", {"units": 8})):
        paths.append(tmp_path_factory.mktemp("serving") / name)
        config = make_config(name, "digits", epochs=2, num_devices=1, **settings)
        training.train_and_evaluate(config, paths[-1])
    return paths


@pytest.fixture(scope="module")
def runs(workdirs):
    return [ServedRun(path) for path in workdirs]


class _Client(requests.Session):
    """Asks one server; paths alone stand for its URLs."""

    def __init__(self, port):
        super().__init__()
        self.trust_env = False  # a proxy of the user's finds no server here
        self.url = f"http://127.0.0.1:{port}"

    def request(self, method, path, **kwargs):
        return super().request(method, self.url + path, timeout=60, **kwargs)


@pytest.fixture
def client(runs, tmp_path):
    server = app.make_server(runs, tmp_path / "drawings")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=[[listener]])
        thread.start()
        with _Client(listener.getsockname()[1]) as client:
            yield client
        server.should_exit = True
        thread.join()


def _png(draw=lambda pen: pen.line([(140, 40), (140, 240)], fill=0, width=18)):
    image = Image.new("RGB", (280, 280), "white")
    draw(ImageDraw.Draw(image))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _post(client, path, content, kind="image/png", **headers):
    headers = {"Content-Type": kind, **headers}
    return client.post(path, data=content, headers=headers)


def _npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_runs_are_described(client, workdirs):
    linear, gru = client.get("/runs").json()
    assert linear == {
        "name": "linear",
        "model": "linear",
        "dataset": "digits",
        "class_names": [str(i) for i in range(10)],
        "test_accuracy": records.read_result(workdirs[0])["test_accuracy"],
        "reads": None,
    }
    assert (gru["model"], gru["reads"]) == ("gru", "rows")


def test_a_drawing_is_predicted_as_its_file_is(client, workdirs, tmp_path):
    from mnist_jax import images

    found = _post(client, "/predict", _png()).json()
    (tmp_path / "one.png").write_bytes(_png())
    image = images.read_image(tmp_path / "one.png")
    assert found["image"] == image[..., 0].tolist()
    for workdir, run in zip(workdirs, found["runs"], strict=True):
        expected = predict.predict(workdir, image[None])
        np.testing.assert_allclose(run["probabilities"], expected, atol=2e-6)
        assert run["classes"] == [str(expected[0].argmax())]
    linear, gru = found["runs"]
    assert linear["reading"] is None
    assert np.shape(gru["reading"]) == (28, 10)
    np.testing.assert_allclose(gru["reading"][-1], gru["probabilities"][0], atol=2e-6)


def test_a_blank_drawing_predicts_nothing(client):
    response = _post(client, "/predict", _png(lambda pen: None))
    assert response.status_code == 200
    found = response.json()
    assert found["image"] is None and found["runs"] == []
    assert "no digit found" in found["error"]


@pytest.mark.parametrize("kind", [bodies.JSON, bodies.NPY])
@pytest.mark.parametrize("shape", [(150, 28, 28), (1, 28, 28, 1)])
def test_arrays_are_predicted(client, workdirs, kind, shape):
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    body = _npy(array)
    if kind == bodies.JSON:
        body = json.dumps({"images": array.tolist()})
    found = _post(client, "/predict", body, kind).json()
    for workdir, run in zip(workdirs, found["runs"], strict=True):
        expected = predict.predict(workdir, array.reshape(-1, 28, 28, 1))
        np.testing.assert_allclose(run["probabilities"], expected, atol=2e-6)
        assert run["classes"] == [str(i) for i in expected.argmax(-1)]


def test_saliency_has_its_largest_value_at_one(client):
    found = _post(client, "/saliency", _png()).json()
    assert [one["name"] for one in found] == ["linear", "gru"]
    for one in found:
        assert np.shape(one["saliency"]) == (28, 28)
        assert np.min(one["saliency"]) >= 0 and np.max(one["saliency"]) == 1


_MALFORMED = {
    "no image": ("image/png", b"\x89PNG\r\n\x1a\n and no more", 400, "cannot be read"),
    "empty": ("image/png", b"", 400, "cannot be read as an image"),
    "no JSON": (bodies.JSON, b"{", 400, "the body cannot be read"),
    "no images": (bodies.JSON, b'{"pictures": []}', 400, "the body cannot be read"),
    "ragged": (bodies.JSON, b"[[[1, 2], [3]]]", 400, "the body cannot be read"),
    "none": (bodies.JSON, b"[]", 400, "expected 1 to 10,000 images"),
    "nested": (bodies.JSON, b"[" * 100_000, 400, "the body cannot be read"),
    "texts": (bodies.JSON, json.dumps([[["a"] * 28] * 28]).encode(), 400, "holds <U1"),
    "too bright": (
        bodies.JSON,
        json.dumps([[[256] * 28] * 28]).encode(),
        400,
        "values",
    ),
    "floats": (bodies.NPY, _npy(np.zeros((1, 28, 28))), 400, "holds float64"),
    "other size": (bodies.NPY, _npy(np.zeros((1, 8, 8), int)), 400, "28 x 28"),
    "objects": (bodies.NPY, _npy(np.array([{}], object)), 400, "cannot be read"),
    "a bomb": (
        bodies.NPY,
        _npy(np.zeros((1, 28, 28), np.uint8)).replace(b"(1, ", b"(900000000000, ", 1),
        400,
        "cannot be read",
    ),
    "another type": ("text/plain", b"7", 415, "Content-Type is 'text/plain'"),
}


@pytest.mark.parametrize("case", _MALFORMED)
def test_malformed_bodies_are_told_and_the_server_goes_on(client, case):
    kind, body, status, message = _MALFORMED[case]
    response = _post(client, "/predict", body, kind)
    assert response.status_code == status, response.text
    assert message in response.json()["error"]
    assert "\n" not in response.json()["error"]
    assert _post(client, "/predict", _png()).status_code == 200


def test_a_body_that_is_too_large_is_refused(client):
    body = b" " * (bodies.MAX_BYTES + 1)
    try:
        response = _post(client, "/predict", body, bodies.JSON)
    except requests.ConnectionError:  # refused before all of it was sent
        pass
    else:
        assert response.status_code == 413
    assert _post(client, "/predict", _png()).status_code == 200


def test_other_hosts_and_pages_are_refused(client):
    response = client.get("/", headers={"Host": "evil.example"})
    assert response.status_code == 400
    for origin in ("http://evil.example", "http://[", "null"):
        response = _post(client, "/predict", _png(), Origin=origin)
        assert response.status_code == 403
        assert "posted by another page" in response.json()["error"]
    own = _post(client, "/predict", _png(), Origin=client.url)
    assert own.status_code == 200


def test_the_page_may_load_its_own_files_alone(client):
    for path in ("/", "/page.js", "/page.css", "/icon.svg"):
        response = client.get(path)
        assert response.status_code == 200
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        text = response.text.replace("http://www.w3.org/2000/svg", "")  # a name
        assert "http:" not in text and "https:" not in text
    assert client.get("/page.py").status_code == 404
    assert client.get("/predict").status_code == 405


def test_drawings_are_kept_by_class(client, tmp_path):
    for number in (1, 2):
        found = _post(client, "/drawings?class=7", _png()).json()
        assert found["file"] == str(tmp_path / f"drawings/7/000{number}.png")
    assert (tmp_path / "drawings/7/0001.png").read_bytes() == _png()
    refused = {
        "class=x: expected one of 0, 1": _post(client, "/drawings?class=x", _png()),
        "class=None": _post(client, "/drawings", _png()),
        "no PNG": _post(client, "/drawings?class=7", b"GIF89a", "image/gif"),
        "no digit": _post(client, "/drawings?class=7", _png(lambda pen: None)),
        "posted by another": _post(
            client, "/drawings?class=7", _png(), Origin="http://evil.example"
        ),
    }
    for message, response in refused.items():
        assert response.status_code in (400, 403)
        assert message in response.json()["error"]
    assert len(list((tmp_path / "drawings").rglob("*.*"))) == 2


def test_a_full_or_missing_place_for_drawings_is_told(client, tmp_path):
    (tmp_path / "drawings").write_text("a file")
    response = _post(client, "/drawings?class=7", _png())
    assert response.status_code == 507
    assert str(tmp_path / "drawings") in response.json()["error"]


@pytest.mark.parametrize(
    ("name", "folder"),
    [("T-shirt/top", "T-shirt-top"), ("..", "-."), ("3", "3"), ("a\\b", "a-b")],
)
def test_class_names_become_folders_inside(tmp_path, name, folder):
    assert drawings.keep(tmp_path, name, b"x") == tmp_path / folder / "0001.png"


def test_a_removed_drawing_leaves_no_other_overwritten(tmp_path):
    first, second = (drawings.keep(tmp_path, "7", b"x") for _ in range(2))
    first.unlink()
    assert drawings.keep(tmp_path, "7", b"y") not in (second,)
    assert second.read_bytes() == b"x"


def test_fifty_requests_at_once_have_each_their_own_answer(client, workdirs):
    arrays = np.random.default_rng(2).integers(0, 256, (50, 1, 28, 28), np.uint8)
    expected = predict.predict(workdirs[0], arrays.reshape(50, 28, 28, 1))

    def ask(array):
        return _post(client, "/predict", _npy(array), bodies.NPY).json()["runs"][0]

    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        found = [one["probabilities"][0] for one in pool.map(ask, arrays)]
    np.testing.assert_allclose(found, expected, atol=2e-6)
