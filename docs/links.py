"""Check that every link of the site that leads to the site leads somewhere, anchors too: `python docs/links.py FOLDER`."""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag


class Page(HTMLParser):
    """What a page links to, and the anchors that it has."""

    def __init__(self, path: Path):
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        """Collect what a tag says."""
        about = dict(attrs)
        elsewhere_is_fine = {"canonical", "alternate"} & set(str(about.get("rel")).split())
        loads = (
            about.get("src")
            or about.get("srcset")
            or (about.get("href") if tag == "link" and not elsewhere_is_fine else "")
        )
        if loads and loads.startswith(("http", "//")):
            self.loaded.append(loads)
        for name, value in attrs:
            if name in ("href", "src") and value and tag != "base":
                self.links.append(value)
            elif value and (name == "id" or (name == "name" and tag == "a")):
                self.anchors.add(value)


def dead_links(folder: Path) -> list[str]:
    """Return a line for each link that leads nowhere, and for whatever a page would load from elsewhere."""
    pages = {path.resolve(): Page(path) for path in sorted(folder.rglob("*.html"))}
    lines = [] if pages else [f"{folder} holds no page"]
    for path, page in pages.items():
        lines += [f"{path}: {loaded} would be loaded from elsewhere" for loaded in page.loaded]
        for link in page.links:
            target, anchor = urldefrag(link)
            if target.partition(":")[0] in ("http", "https", "mailto", "data"):
                continue
            other = (path.parent / unquote(target.partition("?")[0])).resolve() if target else path
            if not (other.exists() and other.is_relative_to(folder.resolve())):
                lines.append(f"{path}: {link} is not there")
            elif anchor and other in pages and unquote(anchor) not in pages[other].anchors:
                lines.append(f"{path}: {link} has no such anchor")
    return lines


if __name__ == "__main__":
    found = dead_links(Path(sys.argv[1]))
    print("\n".join(found) or "no dead link")
    sys.exit(bool(found))
