"""A real JupyterLab in a headless browser: cells run, figures and pages are there, a click comes back."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.denoscope.report.browsing import BROWSERS

CELLS = [
    """import denoscope
from denoscope.models.synthetic.tiny import tiny_sd

model = denoscope.load(tiny_sd())
run = denoscope.trace(model, ["a red cat"], seeds=[0], steps=2, sites="unet/mid.*/cross_attn.out")
run""",
    "run.plot()",
    """found = denoscope.explain(model, "a red cat", steps=2, levels=4)
shown = found.widget(height=500)
shown""",
    "print('picked', shown.picked)",
]
DONE = "document.querySelector('.jp-Notebook iframe') && document.querySelector('.js-plotly-plot') && true"
PICK = """(() => {
  const word = document.body.dataset.ready === "yes" && document.querySelector('[data-word="0"]');
  if (word) word.click();
  return !!word;
})()"""
PANEL = "[...window.jupyterapp.shell.widgets('main')].find(w => w.context?.path === 'first.ipynb')"
LAST = f"""(() => {{
  ({PANEL}).content.activeCellIndex = {len(CELLS) - 1};
  window.jupyterapp.commands.execute('notebook:run-cell');
  return true;
}})()"""


class Browser:
    """Chromium's page, driven by its debugging protocol."""

    def __init__(self, address: str) -> None:
        websocket = pytest.importorskip("websocket")
        self.socket = websocket.create_connection(address, suppress_origin=True, timeout=60)
        self.ids, self.contexts = itertools.count(1), list[int]()
        self("Runtime.enable")
        self("Page.enable")

    def __call__(self, method: str, **params: object) -> dict[str, Any]:
        number = next(self.ids)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            told = json.loads(self.socket.recv())
            if told.get("method") == "Runtime.executionContextCreated":
                self.contexts.append(told["params"]["context"]["id"])
            if told.get("id") == number:
                return told.get("result", {})

    def close(self) -> None:
        """Let go."""
        self.socket.close()

    def value(self, script: str, context: int | None = None) -> object:
        """What a script comes to."""
        where = {} if context is None else {"contextId": context}
        return (
            self("Runtime.evaluate", expression=script, returnByValue=True, **where)
            .get("result", {})
            .get("value")
        )

    def until(self, script: str, seconds: float, everywhere: bool = False) -> object:
        """Ask until it comes to something, in the page or in any frame of it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for context in [None, *self.contexts] if everywhere else [None]:
                if found := self.value(script, context):
                    return found
            time.sleep(0.5)
        said = self.value("document.body.innerText")
        pytest.fail(f"{script} came to nothing in {seconds} s; the page says {said!r}")


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Any]:
    """Starts processes, each with a file for what it says; ends them, whatever happens."""
    running: list[subprocess.Popen[bytes]] = []

    def start(name: str, command: list[str]) -> Path:
        said = tmp_path / f"{name}.log"
        with said.open("wb") as file:
            running.append(subprocess.Popen(command, stdout=file, stderr=file, cwd=tmp_path))
        return said

    yield start
    for process in reversed(running):
        process.terminate()
        process.wait(timeout=30)


def printed(said: Path, what: str, seconds: float) -> str:
    """What follows some words in what a process says."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what in (text := said.read_text()):
            return text.split(what, 1)[1]
        time.sleep(0.2)
    pytest.fail(f"nothing said {what!r} in {seconds} s: {said.read_text()[-2000:]}")


@pytest.mark.stress
def test_cells_figures_and_pages_work_in_a_real_jupyterlab(tmp_path: Path, started: Any) -> None:
    if find_spec("jupyterlab") is None:
        pytest.skip("needs JupyterLab: pip install 'denoscope[notebooks]'")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no headless browser is installed (looked for {', '.join(BROWSERS)})")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in CELLS])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, tmp_path / "first.ipynb")
    lab = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--expose-app-in-browser",
        "--allow-root",
        "--port=0",
    ]
    lab += [f"--ServerApp.root_dir={tmp_path}", "--IdentityProvider.token=t", "--LabApp.news_url="]
    base = printed(started("lab", lab), "http://localhost:", 120).split("/")[0]
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
    command += ["--disable-features=IsolateSandboxedIframes,IsolateOrigins,site-per-process", "about:blank"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,2400"]
    port = printed(started("browser", command), "DevTools listening on ws://127.0.0.1:", 60).split("/")[0]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as said:
        pages = [p for p in json.load(said) if p["type"] == "page"]
    with closing(Browser(pages[0]["webSocketDebuggerUrl"])) as page:
        _tried(page, f"http://localhost:{base}/lab/tree/first.ipynb?token=t")


def _tried(page: Browser, address: str) -> None:
    page("Page.navigate", url=address)
    page.until("!!(window.jupyterapp && document.querySelector('.jp-Notebook .jp-CodeCell'))", 120)
    page.until(f"({PANEL})?.sessionContext?.session?.kernel?.status === 'idle'", 180)
    page.value(f"window.jupyterapp.shell.activateById(({PANEL}).id)")
    page.value("window.jupyterapp.commands.execute('notebook:run-all-cells'), true")
    page.until(DONE, 180)
    assert page.value("document.querySelector('.jp-OutputArea img') !== null")  # the trace shows its pictures
    page.until(PICK, 60, everywhere=True)
    time.sleep(1)
    page.value(LAST)
    told = page.until("[...document.querySelectorAll('.jp-OutputArea-output')].map(o => o.innerText)"
                      ".find(t => t.startsWith('picked') && t.includes('words'))", 60)  # fmt: skip
    assert "'place': None" in str(told) and "error" not in str(page.value("document.body.innerText")).lower()
