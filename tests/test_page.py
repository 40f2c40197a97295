"""The drawing page in a real browser; skips where Playwright or Chromium is missing."""

import base64
import json
import re
import shutil
import signal
import time
import urllib.request

import numpy as np
import pytest
from runs_of_launch import finish, start

from mnist_jax import training
from mnist_jax.config import make_config

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("no Chromium on the PATH", allow_module_level=True)

# A proxy of the user's finds no server here.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))

# A person's digits: strokes of points x,y, in hundredths of the canvas.
_DRAWN = """
0: 52,20 36,26 29,48 33,72 48,82 64,74 70,50 64,28 50,20
1: 50,18 49,50 47,84
2: 32,34 40,22 56,20 66,32 60,48 44,64 31,80 50,79 71,80
3: 34,24 50,18 64,26 62,40 48,47 64,54 68,68 56,81 34,78
4: 40,18 34,50 52,52 70,50 | 62,22 60,55 58,86
5: 66,20 40,21 37,44 56,44 67,58 60,76 36,80
6: 60,16 42,36 33,62 42,80 60,78 65,64 52,55 38,64
7: 30,22 50,22 70,21 58,48 48,84
8: 62,28 50,20 37,28 42,42 58,54 65,70 50,82 36,72 44,54 60,40 62,28
9: 64,34 52,20 36,30 38,46 54,48 64,34 63,58 58,84
"""
STROKES = {
    line[0]: [
        [tuple(map(int, point.split(","))) for point in stroke.split()]
        for stroke in line[2:].split("|")
    ]
    for line in _DRAWN.strip().splitlines()
}


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as api:
        browser = api.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(URL, folder) of a server of two small runs."""
    folder = tmp_path_factory.mktemp("page")
    for name, settings in (("linear", {"epochs": 8}), ("gru", {"units": 16})):
        config = make_config(
            name, "digits", **{"epochs": 3, "num_devices": 1} | settings
        )
        training.train_and_evaluate(config, folder / name)
    with _serve(folder, "linear,gru") as url:
        yield url, folder


class _serve:
    """A server in a process of its own, as a context."""

    def __init__(self, folder, workdirs):
        self._server = start(
            "--mode=serve", f"--workdir={workdirs}", "--port=0", cwd=folder
        )

    def __enter__(self):
        for line in self._server.stdout:
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                return found[0]
        pytest.fail(self._server.stderr.read())

    def __exit__(self, *error):
        self._server.send_signal(signal.SIGINT)
        [(code, _, errors)] = finish([self._server])
        assert code == 130 and "Traceback" not in errors


class _Page:
    """An opened page; on closing, checks what it asked for and what it logged."""

    def __init__(self, browser, url, width=1280, height=900, touch=False):
        self._context = browser.new_context(
            viewport={"width": width, "height": height}, has_touch=touch
        )
        self.page, self._url = self._context.new_page(), url
        self._requests, self._logged = [], []
        self.page.on("request", lambda request: self._requests.append(request.url))
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self._logged.append(str(error)))
        self.page.goto(url)
        self.page.wait_for_selector("article")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._context.close()
        if error[0] is None:
            assert self._logged == []
            foreign = [
                x for x in self._requests if not x.startswith((self._url, "data:"))
            ]
            assert foreign == []

    def _on_console(self, message):
        if message.type == "error":
            self._logged.append(message.text)

    def corner(self):
        box = self.page.locator("#canvas").bounding_box()
        return box["x"], box["y"], box["width"] / 100

    def draw(self, strokes, ends=True):
        """By mouse; the last stroke's button stays down without `ends`."""
        left, top, scale = self.corner()
        mouse = self.page.mouse
        for number, stroke in enumerate(strokes, 1):
            (x, y), *others = stroke
            mouse.move(left + scale * x, top + scale * y)
            mouse.down()
            for x, y in others:
                mouse.move(left + scale * x, top + scale * y, steps=4)
            if ends or number < len(strokes):
                mouse.up()

    def touch(self, strokes):
        left, top, scale = self.corner()
        client = self._context.new_cdp_session(self.page)

        def send(kind, points):
            client.send("Input.dispatchTouchEvent", {
                "type": kind,
                "touchPoints": [
                    {"x": left + scale * x, "y": top + scale * y} for x, y in points
                ],
            })  # fmt: skip

        for stroke in strokes:
            send("touchStart", stroke[:1])
            for point in stroke[1:]:
                send("touchMove", [point])
            send("touchEnd", [])

    def wait(self, condition):
        """Until it holds; Playwright's own way would need the page to allow `eval`."""
        for _ in range(600):
            if self.page.evaluate(condition):
                return
            time.sleep(0.05)
        pytest.fail(f"{condition} does not come true: {self._logged}")

    def predictions(self):
        """The predicted class of each run, once they are there."""
        self.wait(
            "!sending && [...document.querySelectorAll('.prediction')]"
            ".every((x) => x.textContent)"
        )
        found = self.page.locator(".prediction").all_text_contents()
        return [text.split(" ")[0] for text in found]

    def is_blank(self):
        self.wait("!sending")
        texts = self.page.locator(".prediction, .share").all_text_contents()
        return not any(texts)

    def button(self, name):
        return self.page.get_by_role("button", name=name, exact=True)

    def ink(self):
        """How much of the canvas is drawn on."""
        return self.page.evaluate(
            "() => [...canvas.getContext('2d').getImageData(0, 0, 280, 280).data]"
            ".filter((x, i) => i % 4 === 0 && x < 128).length"
        )


def test_a_blank_page_predicts_nothing(browser, served):
    with _Page(browser, served[0]) as page:
        assert page.is_blank()
        assert page.button("Undo").is_disabled() and page.button("Clear").is_disabled()
        page.draw(STROKES["7"])
        assert len(page.predictions()) == 2
        page.button("Clear").click()
        assert page.is_blank() and page.ink() == 0


def test_the_bars_move_while_a_stroke_is_drawn(browser, served):
    with _Page(browser, served[0]) as page:
        widths = "[...document.querySelectorAll('.bar')].map((x) => x.style.width)"
        seen = []
        for number in (2, 4, 9):
            if number > 2:
                page.page.mouse.up()
                page.button("Clear").click()
            page.draw([STROKES["2"][0][:number]], ends=False)
            page.predictions()
            seen.append(page.page.evaluate(widths))
        page.page.mouse.up()
        assert seen[0] != seen[1] != seen[2]


def test_what_is_shown_is_what_the_server_predicts(browser, served):
    with _Page(browser, served[0]) as page:
        page.draw(STROKES["4"])
        shown = page.predictions()
        sent = page.page.evaluate("small.toDataURL('image/png')").partition(",")[2]
        request = urllib.request.Request(  # noqa: S310
            f"{served[0]}/predict",
            data=base64.b64decode(sent),
            headers={"Content-Type": "image/png"},
        )
        with _OPENER.open(request, timeout=60) as response:
            found = json.load(response)
        assert shown == [run["classes"][0] for run in found["runs"]]
        seen = page.page.evaluate(
            "[...seen.getContext('2d').getImageData(0, 0, 28, 28).data]"
            ".filter((x, i) => i % 4 === 0)"
        )
        np.testing.assert_allclose(seen, np.ravel(found["image"]), atol=1)


def test_strokes_are_undone_one_by_one(browser, served):
    with _Page(browser, served[0]) as page:
        page.draw(STROKES["4"])
        both = page.ink()
        page.button("Undo").click()
        assert 0 < page.ink() < both
        page.page.keyboard.press("Control+z")
        assert page.ink() == 0 and page.is_blank()


def test_touch_draws_and_does_not_scroll(browser, served):
    with _Page(browser, served[0], 360, 640, touch=True) as page:
        page.touch(STROKES["1"])
        assert len(page.predictions()) == 2
        assert page.page.evaluate("scrollX + scrollY") == 0
        # Nothing is wider than the screen.
        assert page.page.evaluate("document.documentElement.scrollWidth") <= 360


def test_the_keyboard_draws(browser, served):
    with _Page(browser, served[0]) as page:
        keyboard = page.page.keyboard
        page.page.locator("#canvas").focus()
        for _ in range(10):
            keyboard.press("ArrowUp")
        keyboard.press("Space")
        for _ in range(20):
            keyboard.press("ArrowDown")
        keyboard.press("Space")
        assert len(page.predictions()) == 2
        said = page.page.locator("#live").text_content()
        assert re.fullmatch(r"linear: \d \(.*%\); gru: \d \(.*%\)", said)
        keyboard.press("Delete")
        assert page.is_blank()


def test_a_file_is_predicted_and_one_that_is_no_image_told(browser, served, tmp_path):
    with _Page(browser, served[0]) as page:
        page.draw(STROKES["5"])
        expected = page.predictions()
        path = tmp_path / "five.png"
        page.page.locator("#canvas").screenshot(path=path)
        page.button("Clear").click()
        page.page.locator("#file").set_input_files(path)
        assert page.predictions() == expected
        (tmp_path / "text.png").write_text("no image")
        page.page.locator("#file").set_input_files(tmp_path / "text.png")
        page.wait("problem.textContent")
        assert "cannot be read" in page.page.locator("#problem").text_content()


def test_maps_are_drawn_on_demand(browser, served):
    with _Page(browser, served[0]) as page:
        page.page.locator("#saliency").check()
        page.draw(STROKES["3"])
        page.predictions()
        painted = page.page.evaluate(
            "[...document.querySelectorAll('figure:not([hidden]) canvas')].map((x) =>"
            "[x.width, x.height, Math.max(...x.getContext('2d')"
            ".getImageData(0, 0, x.width, x.height).data.filter((_, i) => i % 4 < 3))])"
        )
        assert [one[:2] for one in painted] == [[28, 28], [10, 28], [28, 28]]
        assert all(brightest > 20 for *_, brightest in painted)


def test_a_kept_drawing_is_a_file_of_its_class(browser, served):
    url, folder = served
    with _Page(browser, url) as page:
        page.draw(STROKES["9"])
        page.predictions()
        page.button("Keep as 9").click()
        page.wait("kept.textContent")
        assert page.is_blank()
    [path] = (folder / "drawings/9").iterdir()
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_ten_drawn_digits_are_recognised(browser, tmp_path, mnist_raw_dir, run_launch):
    """By a cnn trained on MNIST, drawn by mouse and by touch: nine of ten or more."""
    run_launch(
        "--model=cnn", "--dataset=mnist", "--preset=fast", "--workdir=cnn",
        f"--raw_dir={mnist_raw_dir}", cwd=tmp_path,
    )  # fmt: skip
    with _serve(tmp_path, "cnn") as url:
        for touch in (False, True):
            with _Page(browser, url, touch=touch) as page:
                found = []
                for strokes in STROKES.values():
                    (page.touch if touch else page.draw)(strokes)
                    found += page.predictions()
                    page.button("Clear").click()
            hits = [a == b for a, b in zip(found, STROKES, strict=True)]
            assert sum(hits) >= 9, found
