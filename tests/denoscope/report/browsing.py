"""Looking at a page as a browser does, and at its text."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FRAME = """<!doctype html><body><script>
addEventListener("message", e => { if (typeof e.data === "string") document.body.dataset.probe = e.data; });
</script><iframe src="page.html" style="border:0;width:%dpx;height:3000px"></iframe></body>"""


class Page(HTMLParser):
    """Collects tags, addresses and text outside scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.words, self.inside = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.inside = tag if tag in ("script", "style") else self.inside
        self.links += [v for k, v in attrs if k in ("src", "href") and v]

    def handle_endtag(self, tag):
        self.inside = "" if tag == self.inside else self.inside

    def handle_data(self, data):
        if not self.inside:
            self.words.append(data)


HOST = """<!doctype html><body><div id="cell"></div><script type="module">
%s
const shown = JSON.parse(%s), said = [];
const model = { get: name => shown[name], set: (name, value) => said.push([name, value]),
  save_changes: () => { document.body.dataset.probe = JSON.stringify(said); } };
render({ model, el: document.getElementById("cell") });
</script></body>"""


def embed(script, shown, folder):
    """Show a widget as a notebook does: what its script says back to Python, and what the console said."""
    text = json.dumps(json.dumps(shown)).replace("</", "<\\/")
    (folder / "frame.html").write_text(HOST % (script, text))
    return _opened(folder, 900)


def browse(page, probe, folder, width):
    """Open a page in a frame of some width: what the probe in it measured, and what the console said."""
    (folder / "page.html").write_text(page.replace("</body>", probe))
    (folder / "frame.html").write_text(FRAME % width)
    return _opened(folder, max(width, 600))


def _opened(folder, width):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no headless browser is installed (looked for {', '.join(BROWSERS)})")
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command += ["--disable-features=IsolateSandboxedIframes"]  # else a frame has a clock of its own
    command += [f"--user-data-dir={folder / 'profile'}", f"--window-size={width},3000"]
    command += ["--virtual-time-budget=30000", "--dump-dom", (folder / "frame.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    found = re.search(r'data-probe="([^"]+)"', done.stdout)
    assert found, done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(unescape(found[1])), console


def luminance(colour):
    linear = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in linear]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first, second):
    """Of two colours, 1 to 21."""
    dark, light = sorted(map(luminance, (first, second)))
    return (light + 0.05) / (dark + 0.05)
