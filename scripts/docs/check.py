"""The built site by itself: every file that a page loads or links to is there, and nothing is loaded from elsewhere.

    python scripts/docs/check.py site
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}


class _Page(HTMLParser):
    """What a page loads, links to, and can be linked to."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if found := values.get(LOADED.get(tag, "")):
            self.loads.append(found)
        if tag == "a" and (link := values.get("href")):
            self.links.append(link)
        self.ids |= {str(values[key]) for key in ("id", "name") if values.get(key)}


def main() -> int:
    """Prints every fault; 1 if there is one."""
    site = Path(sys.argv[1])
    pages: dict[Path, _Page] = {}
    for path in sorted(site.rglob("*.html")):
        pages[path.resolve()] = page = _Page()
        page.feed(path.read_text())
    faults = []
    for path, page in pages.items():
        if path.name == "404.html":  # its addresses begin at the site's root
            continue
        for address in (*page.loads, *page.links):
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                if address in page.loads and parts.scheme != "data":
                    faults.append(f"{path.relative_to(site.resolve())} loads {address}")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            there = target.exists() and (not parts.fragment or target not in pages or unquote(parts.fragment) in pages[target].ids)
            if not there and parts.fragment != "__skip":
                faults.append(f"{path.relative_to(site.resolve())} leads to {address}")
    print("\n".join([*faults, f"{len(pages)} pages, {len(faults)} faults"]))
    return 1 if faults or not pages else 0


if __name__ == "__main__":
    sys.exit(main())
