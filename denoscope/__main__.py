"""``python -m denoscope``."""

from .cli import app

app(prog_name="denoscope")
