"""The built site: every internal link leads somewhere, and the search finds what is there."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

SITE = Path(__file__).resolve().parents[2] / "docs" / "_build" / "html"

pytestmark = pytest.mark.skipif(
    not (SITE / "index.html").is_file(), reason="`make docs` has not built docs/_build/html"
)


class Page(HTMLParser):
    """Links and places of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.places: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name in ("href", "src") and value:
                self.links.add(value)
            if name == "id" and value:
                self.places.add(value)


@pytest.fixture(scope="module")
def pages() -> dict[Path, Page]:
    shown = [path for path in sorted(SITE.rglob("*.html")) if not {"_modules", "_static"} & set(path.parts)]
    return {path.resolve(): Page(path) for path in shown}


def test_no_internal_link_is_dead(pages) -> None:
    dead = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                dead.append(f"{path.name}: {link}")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].places:
                dead.append(f"{path.name}: {link}")
    assert len(pages) > 50
    assert dead == []


def test_no_page_needs_the_network(pages) -> None:
    fetched = {
        source
        for path in pages
        for source in re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="(https?://[^"]+)"', path.read_text("utf-8"))
    }
    assert fetched == set()


@pytest.mark.parametrize(
    ("word", "page"), [("dropout", "concepts"), ("torchrun", "guide/scale"), ("leiden", "install")]
)
def test_the_search_knows_the_words_of_a_page(word, page) -> None:
    text = (SITE / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text.removeprefix("Search.setIndex(").removesuffix(")"))
    found = index["terms"][word]
    assert page in [index["docnames"][number] for number in ([found] if isinstance(found, int) else found)]
