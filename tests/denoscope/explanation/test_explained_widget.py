"""The page in a notebook's cell: the same file, and what is picked in it comes back."""

from __future__ import annotations

import builtins

import pytest

from denoscope.models.errors import StateError, UsageError
from tests.denoscope.report.browsing import embed

PICK = """<script>
const picking = setInterval(() => {
  if (document.body.dataset.ready !== "yes") return;
  clearInterval(picking);
  document.querySelector('[data-word="1"]').click();
}, 20);
</script></body>"""


def test_the_widget_shows_the_very_page(found, tmp_path):
    widget = found.widget(height=400)
    assert widget.html == found.page(tmp_path / "e.html").read_text() and widget.height == 400
    assert widget.picked == {} and repr(found.prompt) in widget.title


@pytest.mark.slow
def test_what_is_picked_comes_back(found, tmp_path):
    widget = found.widget()
    shown = {"html": widget.html.replace("</body>", PICK), "title": widget.title, "height": widget.height}
    said, console = embed(str(widget._esm), shown, tmp_path)
    words = found.to_frame()["word"].tolist()
    strongest = words[int(found.to_frame()["nats"].abs().idxmax())]
    picked = [] if strongest == words[1] else [strongest, words[1]]  # a click on what is picked lets it go
    assert not console and said == [["picked", {"words": picked, "place": None}]]


def test_without_the_extra_the_error_says_what_works(found, monkeypatch):
    plain = builtins.__import__

    def without(name, *args, **how):
        if name == "anywidget" or (name == "framed" and args[3] == 1):
            raise ModuleNotFoundError("No module named 'anywidget'", name="anywidget")
        return plain(name, *args, **how)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(__import__("sys").modules, "denoscope.report.framed", raising=False)
    with pytest.raises(StateError, match="pip install 'denoscope.notebooks.'.*explanation.html"):
        found.widget()
    with pytest.raises(UsageError, match="height is 5"):
        found.widget(height=5)
