"""From artwork to the weights that ship, in seven steps; each can be stopped and started again.

data, vae, clip, judge, unet, assemble, evaluate: the command all does them in order. What is made on the
way lies in the work folder, with a log.csv for each training. Two CPU cores need an afternoon, a GPU minutes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import torch
import typer
from diffusers import AutoencoderKL, UNet2DConditionModel
from rich.logging import RichHandler
from safetensors.torch import save_file

from ... import judges
from .. import ZOO
from . import assemble as assembling
from . import card, curves, tokenizer, train_clip, train_judge, train_unet, train_vae, vendor, world
from . import evaluate as evaluating
from .data import Pictures, load_pictures, save_pictures

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
Work = Annotated[Path, typer.Option(help="folder for data, logs and checkpoints")]
Out = Annotated[Path, typer.Option(help="folder of the assembled model")]
Minutes = Annotated[
    float, typer.Option(help="time budget; a second start goes on where the first one stopped")
]
Number = Annotated[int, typer.Option("--n", help="how many pictures to generate; the card needs 1,000")]
_WORK = Path("zoo_work")
_NOTES = Path(__file__).parent / "notes.md"
_LOGS = {
    "denoiser": ("unet", "loss"),
    "autoencoder": ("vae", "psnr"),
    "text and image encoder": ("clip", "loss"),
    "judge, unseen combinations": ("judge", "concept"),
}


@app.callback()
def main(threads: Annotated[int, typer.Option(help="threads of each process")] = 1) -> None:
    """Set up logging and threads for all steps."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[RichHandler(show_path=False)])
    torch.set_num_threads(threads)


@app.command()
def data(work: Work = _WORK) -> None:
    """1. Fetch the vendors' artwork from npm and render it (5 minutes)."""
    save_pictures(vendor.build(work / "npm"), work / "data")


@app.command()
def vae(
    work: Work = _WORK,
    minutes: Minutes = 40,
    start: Annotated[
        Path | None, typer.Option(help="an autoencoder whose decoder to refine; its latents stay valid")
    ] = None,
) -> None:
    """2. Train the autoencoder."""
    begin = AutoencoderKL.from_pretrained(start, dtype=torch.float32) if start else None
    train_vae.train(_pictures(work), work / "vae", minutes, start=begin)


@app.command()
def clip(work: Work = _WORK, minutes: Minutes = 25, layers: int = 6) -> None:
    """3. Train the tokenizer, then text encoder and image tower against each other."""
    pictures = _pictures(work)
    words = tokenizer.train(tokenizer.corpus(pictures), work / "clip" / "tokenizer")
    train_clip.train(pictures, words, work / "clip", minutes, layers=layers)


@app.command()
def judge(work: Work = _WORK, minutes: Minutes = 12) -> None:
    """4. Train the attribute classifier; its log shows how well it does on unseen combinations."""
    train, out = world.split(_all_pictures(work))
    model = train_judge.train(train, out, work / "judge", minutes)
    save_file(model.cpu().state_dict(), work / "judge" / "attributes.safetensors")


@app.command()
def unet(
    *,
    work: Work = _WORK,
    minutes: Minutes = 120,
    workers: Annotated[int, typer.Option(help="processes that share the weights; on a CPU only")] = 2,
    batch: Annotated[int, typer.Option(help="pictures in a step; 1024 on a GPU")] = 16,
    rate: float = 4e-4,
    base: Annotated[
        Path | None, typer.Option(help="a model to start from; its frozen parts serve where none are trained")
    ] = None,
) -> None:
    """5. Train the denoiser on the frozen autoencoder and text encoder."""
    frozen = train_unet.Parts.find(_parts(work, base, ("vae", "text_encoder", "tokenizer")))
    first = (
        UNet2DConditionModel.from_pretrained(base / "unet", dtype=torch.float32, low_cpu_mem_usage=False)
        if base
        else train_unet.new_unet()
    )
    settings = train_unet.Settings(minutes=minutes, batch=batch, rate=rate, workers=workers)
    train_unet.train(_pictures(work), frozen, first, work / "unet", settings)


@app.command()
def assemble(
    work: Work = _WORK,
    out: Out = ZOO["emoji"],
    base: Annotated[
        Path | None, typer.Option(help="a model that gives the parts not trained here; may be --out itself")
    ] = None,
) -> None:
    """6. Put everything together in half precision, in diffusers' layout."""
    pictures = _all_pictures(work)
    parts = _parts(work, base, assembling.PARTS)
    assembling.assemble(parts, out, assembling.held_out(pictures, base))


@app.command()
def evaluate(
    work: Work = _WORK,
    out: Out = ZOO["emoji"],
    n: Number = 1000,
    notes: Annotated[
        Path, typer.Option(help="how the weights came to be, in Markdown, for the card")
    ] = _NOTES,
) -> None:
    """7. Judge generated and real pictures; write card.md, card.json, samples.png, training.png."""
    pictures = _all_pictures(work)
    found = evaluating.evaluate(out, judges.read_judge(out), pictures, n, work / "evaluation")
    card.write(out, found, notes.read_text())
    evaluating.sheet(found, pictures, out / "samples.png")
    steps = {assembling.PARTS[name].step for name, run in card.history(out).items() if run}
    logs = {
        title: (work / step / "log.csv", column) for title, (step, column) in _LOGS.items() if step in steps
    }
    if logs:
        curves.curves(logs, out / "training.png")


@app.command(name="all")
def all_(work: Work = _WORK, out: Out = ZOO["emoji"]) -> None:
    """Do all steps with their usual time budgets; what is finished is not done again."""
    if not (work / "data").is_dir():
        data(work)
    vae(work)
    clip(work)
    judge(work)
    unet(work=work)
    assemble(work, out)
    evaluate(work, out)


def _all_pictures(work: Path) -> Pictures:
    if not (work / "data" / "pictures.npz").is_file():
        raise typer.BadParameter(f"there are no pictures in {work / 'data'}; run the step 'data' first")
    return load_pictures(work / "data")


def _parts(work: Path, base: Path | None, names: Iterable[str]) -> dict[str, Path]:
    try:
        return assembling.find_parts(work, base, names)
    except FileNotFoundError as error:
        raise typer.BadParameter(str(error)) from error


def _pictures(work: Path) -> Pictures:
    return world.split(_all_pictures(work))[0]


if __name__ == "__main__":
    app()
