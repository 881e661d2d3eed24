"""The steps from artwork to shipped weights, in order; each can be interrupted and started again."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.logging import RichHandler
from safetensors.torch import load_file, save_file

from ... import judges
from .. import ZOO
from . import assemble as assembling
from . import card, evaluate, tokenizer, train_clip, train_judge, train_unet, train_vae, vendor, world
from .captions import caption
from .data import load_pictures, save_pictures

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
Work = Annotated[Path, typer.Option(help="folder for data and checkpoints")]
Minutes = Annotated[float, typer.Option(help="time budget; a second start goes on where the first one stopped")]
_WORK = Path("zoo_work")


@app.callback()
def main(threads: Annotated[int, typer.Option(help="threads of each process")] = 1) -> None:
    """The steps from artwork to shipped weights, in order; each can be interrupted and started again."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[RichHandler(show_path=False)])
    torch.set_num_threads(threads)


@app.command()
def data(work: Work = _WORK) -> None:
    """1. Fetch the vendors' artwork from npm and render it (about 2 minutes)."""
    save_pictures(vendor.build(work / "npm"), work / "data")


@app.command()
def vae(work: Work = _WORK, minutes: Minutes = 40, start: Path | None = None) -> None:
    """2. Train the autoencoder; with --start refine the decoder of an existing one, so that latents stay valid."""
    begin = train_unet.AutoencoderKL.from_pretrained(start, torch_dtype=torch.float32) if start else None
    train_vae.train(_pictures(work), work / "vae", minutes, start=begin)


@app.command()
def clip(work: Work = _WORK, minutes: Minutes = 25, layers: int = 6) -> None:
    """3. Train the tokenizer, then text encoder and image tower against each other."""
    pictures = _pictures(work)
    words = tokenizer.train(tokenizer.corpus(pictures), work / "clip" / "tokenizer")
    trained = train_clip.train(pictures, words, work / "clip", minutes, layers=layers)
    trained.text.text_model.save_pretrained(work / "clip" / "text_encoder")


@app.command()
def judge(work: Work = _WORK, minutes: Minutes = 12) -> None:
    """4. Train the attribute classifier; its accuracy on held-out combinations is in judge/log.csv."""
    train, out = world.split(load_pictures(work / "data"))
    model = train_judge.train(train, out, work / "judge", minutes)
    save_file(model.cpu().state_dict(), work / "judge" / "attributes.safetensors")


@app.command()
def unet(
    work: Work = _WORK,
    minutes: Minutes = 120,
    workers: int = 2,
    batch: int = 16,
    rate: float = 7e-4,
    start: Annotated[Path | None, typer.Option(help="a pipeline folder to start from")] = None,
) -> None:
    """5. Train the denoiser on the frozen autoencoder and text encoder. On a GPU: --batch 1024."""
    parts = train_unet.Parts.read(start or _frozen(work))
    first = (
        train_unet.UNet2DConditionModel.from_pretrained(start / "unet", torch_dtype=torch.float32)
        if start
        else train_unet.new_unet()
    )
    settings = train_unet.Settings(minutes=minutes, batch=batch, rate=rate, workers=workers)
    train_unet.train(_pictures(work), parts, first, work / "unet", settings)


@app.command()
def assemble(work: Work = _WORK, out: Path = ZOO["emoji"]) -> None:
    """6. Put everything together in half precision, in diffusers' layout."""
    clip_parts, judge_parts = work / "clip", work / "clip" / "judge"
    parts = {
        "unet": work / "unet" / "unet",
        "vae": work / "vae" / "vae",
        "text_encoder": clip_parts / "text_encoder",
        "tokenizer": clip_parts / "tokenizer",
        "clip_image": judge_parts / "clip_image.safetensors",
        "clip_text": judge_parts / "clip_text.safetensors",
        "attributes": work / "judge" / "attributes.safetensors",
    }
    assembling.assemble(parts, out, load_pictures(work / "data"))


@app.command(name="evaluate")
def evaluate_(
    work: Work = _WORK,
    out: Path = ZOO["emoji"],
    number: int = 1000,
    notes: Annotated[Path | None, typer.Option(help="text for the card: how the weights were trained")] = None,
) -> None:
    """7. Judge generated pictures; write card.md, results.json, samples.png and training.png."""
    pictures = load_pictures(work / "data")
    results = evaluate.evaluate(out, judges.read_judge(out), pictures, number)
    evaluate.dump(results, out / "results.json")
    card.write(out / "card.md", results, [notes.read_text().strip()] if notes else [])
    evaluate.sample_sheet(results, pictures, out / "samples.png")
    logs = {
        "denoiser": (work / "unet" / "log.csv", "loss"),
        "autoencoder": (work / "vae" / "log.csv", "psnr"),
        "attribute judge": (work / "judge" / "log.csv", "concept"),
    }
    card.curves({k: v for k, v in logs.items() if v[0].is_file()}, out / "training.png")


def _pictures(work: Path) -> train_unet.Pictures:
    return world.split(load_pictures(work / "data"))[0]


def _frozen(work: Path) -> Path:
    """One folder with the frozen parts, as a pipeline has them."""
    folder = work / "frozen"
    folder.mkdir(exist_ok=True)
    for name, source in (("vae", "vae/vae"), ("text_encoder", "clip/text_encoder"), ("tokenizer", "clip/tokenizer")):
        if not (folder / name).exists():
            (folder / name).symlink_to((work / source).resolve(), target_is_directory=True)
    return folder


if __name__ == "__main__":
    app()
