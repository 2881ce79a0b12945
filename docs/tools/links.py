"""Every link of a built site: those within it must lead somewhere, and nothing may be loaded from elsewhere."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {("img", "src"), ("script", "src"), ("iframe", "src"), ("source", "src"), ("link", "href")}
NOT_LOADED = {"canonical", "prev", "next", "alternate", "edit"}


class _Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[tuple[bool, str]] = []  # (is it loaded with the page?, address)
        self.anchors = {""}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        loaded = [given[name] for kind, name in LOADED if kind == tag and name in given]
        if tag == "link" and NOT_LOADED & set(given.get("rel", "").split()):
            return
        self.links += [(True, address) for address in loaded]
        if tag == "a" and "href" in given:
            self.links.append((False, given["href"]))


def wrong(site: Path) -> list[str]:
    """One line per link that leads nowhere or is loaded from another host."""
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    found = set()
    for path, page in pages.items():
        for loaded, address in page.links:
            parts = urlsplit(address)
            if parts.scheme in ("http", "https") or parts.netloc:
                if loaded:
                    found.add(f"{path.relative_to(site)}: loads {address}")
            elif not parts.scheme and path.name != "404.html" and not _leads(path, parts, pages):
                found.add(f"{path.relative_to(site)}: {address} leads nowhere")
    return sorted(found)


def _leads(path: Path, parts, pages: dict) -> bool:
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if target.is_dir():
        target = target / "index.html"
    if target in pages:
        return unquote(parts.fragment) in pages[target].anchors
    return target.is_file()
