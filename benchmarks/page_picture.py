"""The picture of the page at the top of README.md, some minutes: ``python benchmarks/page_picture.py``.

Runs the demo into --output under a hash of the weights, where a run that was stopped goes on, and takes its
picture in a Chromium.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pages import ROOT, output
from PIL import Image

import denoscope
from denoscope.models.store.fingerprint import fingerprint

PICTURE = ROOT / "docs" / "images" / "report.png"
DEMO = ("demo",)
SIZE = (1060, 1240)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def shoot(page: Path, picture: Path) -> None:
    """What a browser shows of the top of a page."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit(f"a picture of a page needs a browser: none of {', '.join(BROWSERS)} is installed")
    with tempfile.TemporaryDirectory() as profile:
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--user-data-dir={profile}"]
        size = ["--virtual-time-budget=5000", "--window-size=" + ",".join(map(str, SIZE))]
        to = [f"--screenshot={picture}", page.resolve().as_uri()]
        subprocess.run([browser, *options, *size, *to], check=True, capture_output=True)
    Image.open(picture).convert("P", palette=Image.Palette.ADAPTIVE, colors=255).save(picture, optimize=True)


def main() -> None:
    """Run the demo, take the picture."""
    folder = output(__doc__) / fingerprint(denoscope.load("emoji"))[:12] / "demo"
    command = [sys.executable, "-m", "denoscope", *DEMO, "--output", str(folder)]
    subprocess.run(command, check=True)
    shoot(folder / "report.html", PICTURE)


if __name__ == "__main__":
    main()
