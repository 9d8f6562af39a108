"""The documentation as a site: built without a warning, whole, every link leads somewhere, and nothing is fetched."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag

import pytest

from support.paths import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", out]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return out


class Page(HTMLParser):
    """What a page links to, what it fetches, and what in it can be linked to."""

    def __init__(self, path):
        super().__init__()
        self.path, self.links, self.fetched, self.anchors = path, [], [], {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        told = dict(attrs)
        self.anchors.add(told.get("id") or "")
        if tag == "a" and told.get("href"):
            self.links.append(told["href"])
        elif tag == "link" and told.get("rel") not in ("canonical", "next", "prev"):
            self.fetched.append(told["href"])
        if told.get("src"):
            self.fetched.append(told["src"])


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}


def is_remote(target):
    return re.match(r"https?://|mailto:|data:", target)


def test_every_link_leads_to_a_page_and_a_place_on_it(pages):
    lost = []
    for path, page in pages.items():
        for target in [*page.links, *page.fetched]:
            if is_remote(target):
                continue
            file, anchor = urldefrag(unquote(target))
            there = (path.parent / file).resolve() if file else path
            found = there.is_file() and (there not in pages or anchor in pages[there].anchors)
            lost += [] if found else [f"{path.name}: {target}"]
    assert lost == [] and sum(len(page.links) for page in pages.values()) > 2000


def test_nothing_is_fetched_from_elsewhere(site, pages):
    assert [target for page in pages.values() for target in page.fetched if is_remote(target)] == []
    for style in site.rglob("*.css"):
        assert not re.search(r"@import|url\(['\"]?https?:", style.read_text(encoding="utf-8"))


def test_all_documents_and_all_modules_are_there(site, pages):
    for document in [*(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").rglob("*.ipynb")]:
        assert (site / document.relative_to(ROOT / "docs").with_suffix(".html")) in pages
    source = ROOT / "src" / "fedloom"
    for module in source.glob("*/**/*.py"):
        names = module.relative_to(source.parent).with_suffix("").parts
        if module.name != "__init__.py" and not any(name.startswith("_") for name in names):
            assert ".".join(names) in pages[site / "reference" / f"{names[1]}.html"].anchors


def test_names_of_documents_became_links(site, pages):
    reading = {urldefrag(link)[0] for link in pages[site / "reading_order.html"].links}
    assert {"people.html", "hospital.html", "models.html", "flower.html"} <= reading
    performance = (site / "performance.html").read_text(encoding="utf-8")
    assert 'src="benchmarks/results/cpu.svg"' in performance


def test_examples_of_docstrings_are_shown_as_code(site):
    text = (site / "reference" / "base.html").read_text(encoding="utf-8")
    assert "Did you mean" in text and "&gt;&gt;&gt;" in text and "[B]" not in text
