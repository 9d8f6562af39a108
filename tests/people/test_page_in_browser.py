"""A person's page in headless Chromium: it loads nothing, fits the screen, and its meshes are drawn and turn."""

import io
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import sync_playwright

from fedloom.people.capture_files import read_capture, write_capture
from fedloom.people.page import write_page
from fedloom.people.wearing import swap
from support.small_people import BODY, capture_at, copied, quiet, whole_at

pytestmark = [pytest.mark.browser, pytest.mark.slow]
SECTIONS = ["Photographs", "Layers", "Classes", "Errors", "Swaps", "Turn them"]
NAME = "anna <script>window.hostile = 1</script> " + "x" * 80
GL = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    truth = capture_at(folder / "capture") / "truth"
    kept = shutil.move(truth, folder / "truth")
    write_capture(replace(read_capture(folder / "capture"), name=NAME), folder / "capture")
    shutil.move(kept, truth)
    person = whole_at(folder / "capture", folder / "anna")
    swap(copied(person, folder / "berta"), person, BODY, ("upper",), "bound", "raised", quiet)
    return write_page(person)


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=GL)
        yield browser
        browser.close()


class Opened:
    """A page, what it asked for, and what went wrong on it."""

    def __init__(self, browser, path, **settings):
        self.page = browser.new_page(**settings)
        self.errors, self.requests = [], []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("requestfailed", lambda request: self.errors.append(request.url))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())


@pytest.fixture(scope="module")
def opened(browser, path):
    return Opened(browser, path, viewport={"width": 1280, "height": 900})


def pixels(frame):
    return np.asarray(Image.open(io.BytesIO(frame.screenshot())).convert("RGB")).astype(int)


@pytest.mark.parametrize("title", SECTIONS)
def test_section_is_visible(opened, title):
    assert opened.page.get_by_role("heading", name=title, exact=True).is_visible()


def test_every_picture_is_there(opened):
    sizes = opened.page.evaluate("[...document.images].map(e => [e.complete, e.naturalWidth, e.alt.length > 0])")
    assert len(sizes) >= 10 and all(done and width > 100 and named for done, width, named in sizes)


def test_meshes_are_drawn_and_turn(opened):
    frame = opened.page.locator("iframe")
    frame.scroll_into_view_if_needed()
    opened.page.wait_for_timeout(3000)
    before = pixels(frame)
    inner = before[20:-20, 20:-20].reshape(-1, 3)
    paper = inner[0]
    drawn = (np.abs(inner - paper).max(1) > 30).mean()
    assert drawn > 0.01 and len(np.unique(inner // 8, axis=0)) > 20
    box = frame.bounding_box()
    opened.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    opened.page.mouse.down()
    opened.page.mouse.move(box["x"] + box["width"] / 2 + 150, box["y"] + box["height"] / 2, steps=5)
    opened.page.mouse.up()
    opened.page.wait_for_timeout(1500)
    assert (np.abs(pixels(frame) - before).max(2) > 30).mean() > 0.005


def test_page_asks_for_nothing_but_itself_and_nothing_goes_wrong(opened, path):
    own = (path.as_uri(), "about:srcdoc")
    assert [url for url in opened.requests if not url.startswith(("data:", "blob:")) and url not in own] == []
    assert opened.errors == []


def test_hostile_name_stays_a_text(opened):
    assert opened.page.evaluate("[document.scripts.length, window.hostile === undefined]") == [0, True]
    assert NAME in opened.page.locator("h1").inner_text()


@pytest.mark.parametrize("width", [1280, 400])
def test_page_does_not_scroll_sideways(browser, path, width):
    page = Opened(browser, path, viewport={"width": width, "height": 900}).page
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_dark_readers_get_a_dark_page(browser, path):
    page = Opened(browser, path, color_scheme="dark", viewport={"width": 800, "height": 600}).page
    assert np.median(pixels(page), axis=(0, 1)).max() < 60
