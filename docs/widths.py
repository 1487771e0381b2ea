"""Check in Chromium that no page of the site is wider than a screen, a desktop's or a phone's: `python docs/widths.py FOLDER`.

Without Chromium it says so, and checks nothing.
"""

import html
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

WIDTHS = (1400, 390)  # CSS pixels, of a desktop and a phone
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# each page in a frame of each width; what does not fit is told by the document's own width
SCRIPT = """<!DOCTYPE html><body><script>
const pages = PAGES, widths = WIDTHS, found = [];
(async () => {
  for (const width of widths) for (const page of pages) {
    const frame = document.createElement("iframe");
    frame.style.cssText = `width:${width}px;height:900px;border:0`;
    const loaded = new Promise(resolve => { frame.onload = resolve; });
    frame.src = page; document.body.append(frame); await loaded;
    found.push([page, width, frame.contentDocument.documentElement.scrollWidth]);
    frame.remove();
  }
  document.body.dataset.found = JSON.stringify(found);
})();
</script></body>"""


def main(folder: Path) -> int:
    """Check all pages; returns the exit status."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print("widths: no Chromium here, nothing is checked")
        return 0
    pages = [path.as_uri() for path in sorted(folder.resolve().rglob("*.html"))]
    with tempfile.TemporaryDirectory() as place:
        frames = Path(place) / "frames.html"
        frames.write_text(SCRIPT.replace("PAGES", json.dumps(pages)).replace("WIDTHS", json.dumps(WIDTHS)))
        flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--allow-file-access-from-files",
            "--virtual-time-budget=120000",
        ]
        call = [browser, *flags, "--window-size=1600,1000", "--dump-dom", frames.as_uri()]
        dom = subprocess.run(call, capture_output=True, text=True, timeout=300).stdout
    match = re.search(r'data-found="(.*?)"', dom)
    if match is None:
        print("widths: Chromium did not come to an end")
        return 1
    found = json.loads(html.unescape(match[1]))
    wide = [(page, width, own) for page, width, own in found if own > width]
    for page, width, own in wide:
        print(f"{page}: {own} px on a screen of {width} px")
    print(f"widths: {len(pages)} pages on {len(WIDTHS)} screens, {len(wide)} too wide")
    return 1 if wide or len(found) < len(pages) * len(WIDTHS) else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
