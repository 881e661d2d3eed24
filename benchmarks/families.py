"""Each family: how long its adapter is, and what watching it costs: ``python benchmarks/families.py``.

Tiny random models, so nearly all of the time is Python's: at real size the overhead is smaller. The table is
written into docs/families/index.md, between ``<!-- families -->`` and ``<!-- /families -->``.
"""

from __future__ import annotations

import inspect
import re
import sys
import warnings

import pages
import torch
from measure import race

import denoscope
from denoscope.models.synthetic import tiny, tiny_families

STEPS, SITES, ROUNDS = 10, 16, 7
MAKERS = {
    "Stable Diffusion": tiny.tiny_sd,
    "Stable Diffusion XL": tiny_families.tiny_sdxl,
    "PixArt-Sigma": tiny_families.tiny_pixart_sigma,
    "Sana": tiny_families.tiny_sana,
    "Stable Diffusion 3": tiny_families.tiny_sd3,
    "FLUX.1 dev": tiny_families.tiny_flux,
    "DiT": tiny_families.tiny_dit,
    "Latent diffusion": tiny_families.tiny_ldm,
    "DDPM": tiny.tiny_ddpm,
}
HEADER = ("family", "adapter, lines", "sites", "trace 16 sites / pipeline, time", "seconds")


def lines(model: denoscope.Model) -> int:
    """Lines of the adapter's file that are neither blank nor docstring nor comment."""
    source = inspect.getsource(sys.modules[type(model).__module__])
    code = re.sub(r'""".*?"""', "", source, flags=re.DOTALL)
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in code.splitlines())


def watched(model: denoscope.Model) -> list[denoscope.Site]:
    """Sixteen sites of the denoiser, spread over its depth."""
    part = model.input_site.component
    found = [s for s in model.sites(f"{part}/**") if s.kind.endswith((".out", ".post"))]
    return [found[i * (len(found) - 1) // (SITES - 1)] for i in range(SITES)]


def measure(name: str) -> tuple[str, ...]:
    """Race a trace against the family's own pipeline; both give the same pictures, which is checked."""
    model = denoscope.load(MAKERS[name]())
    texts = ["", ""] if not model.conditional else ["cat", "cook"]
    sites, guidance = watched(model), 4.0

    def ours() -> torch.Tensor:
        run = denoscope.trace(model, texts, seeds=[0, 1], steps=STEPS, guidance=guidance, sites=sites)
        return run.images

    def theirs() -> torch.Tensor:
        return model.run_pipeline(texts, [torch.Generator().manual_seed(s) for s in (0, 1)], STEPS, guidance)

    if not torch.equal(ours(), theirs()):
        raise RuntimeError(f"the traced run of {name} and the pipeline's differ")
    pair = race(ours, theirs, ROUNDS)
    seconds = "{:.2f} against {:.2f}".format(*pair.seconds)
    return name, str(lines(model)), str(len(model.sites())), f"{pair.ratio:.2f}", seconds


def main() -> None:
    """Measure all families and write the table."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    text = pages.table(HEADER, [measure(name) for name in MAKERS])
    pages.write("docs/families/index.md", "families", text)
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
