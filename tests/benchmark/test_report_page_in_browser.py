"""The page in headless Chromium: it loads nothing, complains of nothing, fits the screen and shows something."""

import io
import shutil

import pytest
from PIL import Image
from playwright.sync_api import sync_playwright

from fedloom.benchmark.page import write_report
from support.studies import make_study

pytestmark = [pytest.mark.browser, pytest.mark.slow]
SECTIONS = ["Ranking", "Paired differences", "Clients", "Curves", "Data", "Cost", "Environment"]
WIDTHS = pytest.mark.parametrize("width", [1280, 400])


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_report(make_study(tmp_path_factory.mktemp("study")))


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


class Opened:
    """A page and everything that the browser had to say of it."""

    def __init__(self, browser, path, **settings):
        self.page = browser.new_page(**settings)
        self.complaints, self.requests = [], []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("requestfailed", lambda request: self.complaints.append(request.url))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())


@pytest.fixture(scope="module")
def opened(browser, path):
    return Opened(browser, path, viewport={"width": 1280, "height": 900})


def colours(page):
    """How many colours the first screen has, and its commonest."""
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    counts = sorted(image.getcolors(maxcolors=2**24), reverse=True)
    return len(counts), counts[0][1]


def test_console_stays_silent(opened):
    assert opened.complaints == []


def test_page_asks_for_nothing_but_itself(opened, path):
    assert [url for url in opened.requests if not url.startswith("data:")] == [path.as_uri()]


@pytest.mark.parametrize("title", SECTIONS)
def test_section_is_visible(opened, title):
    assert opened.page.get_by_role("heading", name=title, exact=True).is_visible()


def test_every_drawing_has_size_and_words(opened):
    drawings = opened.page.get_by_role("img")
    shown = [
        (drawings.nth(n).bounding_box()["height"] > 50, drawings.nth(n).get_attribute("aria-label"))
        for n in range(drawings.count())
    ]
    assert len(shown) > 3
    assert all(tall and words for tall, words in shown)


def test_contents_lead_to_their_sections(opened):
    opened.page.get_by_role("navigation").get_by_role("link", name="Cost").click()
    assert opened.page.get_by_role("heading", name="Cost", exact=True).bounding_box()["y"] < 900


@WIDTHS
def test_page_does_not_scroll_sideways(browser, path, width):
    page = Opened(browser, path, viewport={"width": width, "height": 900}).page
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@WIDTHS
def test_no_text_is_cut_off_outside_what_scrolls(browser, path, width):
    page = Opened(browser, path, viewport={"width": width, "height": 900}).page
    outside = page.evaluate(
        "[...document.querySelectorAll('h1, h2, p, dd, dt, li, figcaption, summary')]"
        ".filter(e => e.getBoundingClientRect().right > innerWidth).map(e => e.textContent)"
    )
    assert outside == []


def edge(table):
    """The share of the rightmost pixels of a table's frame that are no paper."""
    image = Image.open(io.BytesIO(table.screenshot())).convert("RGB")
    column = [image.getpixel((image.width - 2, y)) for y in range(image.height)]
    paper = image.getpixel((image.width // 2, image.height - 3))
    return sum(max(abs(a - b) for a, b in zip(pixel, paper, strict=True)) > 8 for pixel in column) / len(column)


@pytest.fixture(params=["light", "dark"])
def wide_table(request, browser, path):
    """A table that is wider than a narrow screen."""
    page = Opened(browser, path, color_scheme=request.param, viewport={"width": 400, "height": 900}).page
    return page.locator(".wide", has=page.locator("table:visible")).first


def test_first_column_stays_while_a_table_scrolls(wide_table):
    moved = wide_table.evaluate("e => (e.scrollLeft = 9999, e.scrollLeft)")
    stays = wide_table.evaluate("e => e.querySelector('tbody th').getBoundingClientRect().left - e.offsetLeft")
    assert (moved > 50, abs(stays) < 20) == (True, True)


def test_shadow_at_the_edge_tells_that_a_table_goes_on(wide_table):
    before = edge(wide_table)
    wide_table.evaluate("e => e.scrollLeft = 9999")
    assert (before > 0.9, edge(wide_table) < 0.5) == (True, True)


def test_drawings_lie_in_frames_that_scroll(opened):
    outside = opened.page.evaluate("[...document.querySelectorAll('main svg')].filter(e => !e.closest('.wide')).length")
    assert outside == 0


def test_screenshot_is_not_blank(opened):
    assert colours(opened.page)[0] > 50


def test_dark_readers_get_a_dark_page(browser, path):
    page = Opened(browser, path, color_scheme="dark").page
    assert max(colours(page)[1]) < 60


def test_texts_of_drawings_are_light_on_dark(browser, path):
    page = Opened(browser, path, color_scheme="dark").page
    fill = page.evaluate("getComputedStyle(document.querySelector('svg text')).fill")
    assert min(int(part) for part in fill.removeprefix("rgb(").removesuffix(")").split(",")) > 150


def test_hostile_names_stay_texts(opened):
    assert opened.page.evaluate("document.scripts.length") == 0
