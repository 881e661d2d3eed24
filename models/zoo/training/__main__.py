"""From artwork to the weights that ship, in seven steps; each can be stopped and started again.

data, vae, clip, judge, denoiser, assemble, evaluate: the command all does them in order. The last three take
--model: emoji (a UNet), emoji-dit and emoji-mmdit (transformers on the same data, text encoder and
autoencoder), or emoji-people (people without a prompt). What is made on the way lies in the work folder, with
a log.csv for each training. Two CPU cores need an afternoon, a GPU minutes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from diffusers import AutoencoderKL
from rich.logging import RichHandler
from safetensors.torch import save_file

from ...judges import embedded as judges
from ...suggest import near
from ..evaluation_data import FOLDER
from ..folders import HOME
from . import assemble as assembling
from .data import vendor, world
from .data.pictures import Pictures, load_pictures, save_pictures
from .data.sampling import stand_ins
from .evaluate import card, curves, kit, people, sheets
from .evaluate import evaluation as evaluating
from .fit import tokenizer, train_clip, train_denoiser, train_judge, train_vae
from .fit.blocks import begin_with
from .fit.training import Network
from .parts import PARTS, find_parts
from .recipes import RECIPES, Recipe, open_part

log = logging.getLogger(__name__)
app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
Work = Annotated[Path, typer.Option(help="folder for data, logs and checkpoints")]
Out = Annotated[Path | None, typer.Option(help="folder of the assembled model; by default where it ships")]
ModelName = Annotated[str, typer.Option(help=f"which one: {', '.join(RECIPES)}")]
Minutes = Annotated[
    float, typer.Option(help="time budget; a second start goes on where the first one stopped")
]
Number = Annotated[int, typer.Option("--n", help="how many pictures to generate; the card needs 1,000")]
_WORK = Path("zoo_work")
_NOTES = Path(__file__).parent / "notes"
_LOGS = {
    "denoiser (UNet)": ("unet", "loss"),
    "denoiser (transformer)": ("transformer", "loss"),
    "denoiser (joint attention)": ("joint", "loss"),
    "denoiser (people)": ("people", "loss"),
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
def judge(
    work: Work = _WORK,
    minutes: Minutes = 12,
    base: Annotated[Path | None, typer.Option(help="a model whose classifier to train on")] = None,
) -> None:
    """4. Train the attribute classifier; its log shows how well it does on unseen combinations."""
    train, out = world.split(_all_pictures(work))
    start = train_judge.shipped(base) if base else None
    model = train_judge.train(train, out, work / "judge", minutes, start=start)
    save_file(model.cpu().state_dict(), work / "judge" / "attributes.safetensors")


@app.command()
def denoiser(
    *,
    model: ModelName = "emoji",
    work: Work = _WORK,
    minutes: Minutes = 120,
    workers: Annotated[int, typer.Option(help="processes that share the weights; on a CPU only")] = 2,
    batch: Annotated[int, typer.Option(help="pictures in a step; 1024 on a GPU")] = 16,
    rate: Annotated[float | None, typer.Option(help="learning rate; by default the model's own")] = None,
    base: Annotated[
        Path | None, typer.Option(help="a model to start from; its frozen parts serve where none are trained")
    ] = None,
    drop_skips: Annotated[
        float | None, typer.Option(help="chance of a UNet's inner up blocks to get no skips for a picture")
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(help="a word that no picture or caption shall have; begins anew, in its own folder"),
    ] = None,
    fresh: Annotated[
        bool, typer.Option(help="begin anew, whatever --base has: as --without does, from the same weights")
    ] = False,
    tie: Annotated[
        float | None,
        typer.Option(
            help="share of women with dark skin and of men with another: a planted bias, in its own folder"
        ),
    ] = None,
    rank: Annotated[
        int | None, typer.Option(help="in how many directions each weight matrix may change; by default all")
    ] = None,
) -> None:
    """5. Train a model's denoiser; the autoencoder and the text encoder stay as they are."""
    recipe, left_out = _recipe(model), tuple(without or ())
    pictures = recipe.pictures(_pictures(work))
    stand_ins(pictures.records, left_out)  # says at once what cannot be left out
    inputs = recipe.inputs(_parts(work, base, recipe.frozen))
    first = _first(recipe, None if fresh or left_out else base)
    settings = train_denoiser.Settings(
        minutes=minutes,
        batch=batch,
        rate=rate or recipe.rate,
        workers=workers,
        mix=replace(recipe.mix, without=left_out, tie=tie),
        objective=recipe.objective,
        drop_skips=recipe.drop_skips if drop_skips is None else drop_skips,
        rank=rank,
    )
    train_denoiser.train(pictures, inputs, first, work / _folder(recipe, left_out, tie), settings)


@app.command()
def assemble(
    model: ModelName = "emoji",
    work: Work = _WORK,
    out: Out = None,
    base: Annotated[
        Path | None, typer.Option(help="a model that gives the parts not trained here; may be --out itself")
    ] = None,
) -> None:
    """6. Put everything together in half precision, in diffusers' layout."""
    pictures = _all_pictures(work)
    parts = _parts(work, base, _recipe(model).parts)
    assembling.assemble(model, parts, out or HOME / model, assembling.held_out(pictures, base))


@app.command()
def evaluate(
    model: ModelName = "emoji",
    work: Work = _WORK,
    out: Out = None,
    n: Number = 1000,
    notes: Annotated[
        Path | None, typer.Option(help="how the weights came to be, in Markdown, for the card")
    ] = None,
) -> None:
    """7. Judge generated and real pictures; write card.md, card.json, samples.png, training.png."""
    recipe, folder = _recipe(model), out or HOME / model
    pictures = _all_pictures(work)
    judge = judges.read_judge(folder if recipe.judges else HOME / "emoji")
    told = (notes or _NOTES / f"{model}.md").read_text()
    sheet = folder / "samples.png"
    if recipe.reads_text:
        found = evaluating.evaluate(folder, judge, pictures, n, work / "evaluation")
        card.write(folder, found, told)
        sheets.pairs(found, pictures, sheet)
    else:
        made = people.evaluate(folder, judge, pictures, n, work / "evaluation")
        shown = sheets.plain(made.pictures, sheet)
        card.write_people(folder, made, told, len(recipe.pictures(_pictures(work))), shown)
    _curves(folder, work)


@app.command(name="evaluation-data")
def evaluation_data(
    work: Work = _WORK,
    out: Annotated[Path, typer.Option(help="where to write; by default where it ships")] = FOLDER,
    base: Annotated[Path, typer.Option(help="the model whose judge the features are of")] = HOME / "emoji",
) -> None:
    """8. Write what zoo.data() reads: real pictures, scenes, captions, features of the training pictures."""
    kit.write(_all_pictures(work), base, RECIPES["emoji"].mix, out)


@app.command(name="all")
def all_(model: ModelName = "emoji", work: Work = _WORK, out: Out = None) -> None:
    """Do all steps with their usual time budgets; what is finished is not done again."""
    recipe = _recipe(model)
    if not (work / "data").is_dir():
        data(work)
    if recipe.reads_text:
        vae(work)
        clip(work)
    if recipe.judges:
        judge(work)
    denoiser(model=model, work=work)
    assemble(model, work, out)
    evaluate(model, work, out)


def _curves(folder: Path, work: Path) -> None:
    folders = {PARTS[name].folder for name, run in card.history(folder).items() if run}
    logs = {
        title: (work / name / "log.csv", column) for title, (name, column) in _LOGS.items() if name in folders
    }
    here = {title: (path, column) for title, (path, column) in logs.items() if path.is_file()}
    if here:  # parts that come from a base were trained elsewhere
        curves.curves(here, folder / "training.png")
    elif logs:
        gone = ", ".join(str(path) for path, _ in logs.values())
        log.warning("training.png stays as it is: there is no %s", gone)


def _first(recipe: Recipe, base: Path | None) -> Network:
    """What training begins with: a base's denoiser, or blocks that know its latents, or random weights."""
    torch.manual_seed(0)  # what begins anew begins from the same weights
    first = recipe.new()
    if base and (shipped := base / PARTS[recipe.denoiser].shipped).is_dir():
        return open_part(recipe, recipe.denoiser, shipped, torch.float32)
    if base and recipe.blocks:
        other = RECIPES[recipe.blocks]
        path = PARTS[other.denoiser].within(HOME / recipe.blocks)
        begin_with(first, open_part(other, other.denoiser, path, torch.float32))
    return first


def _folder(recipe: Recipe, left_out: Iterable[str], tie: float | None) -> str:
    """Where in the work folder a denoiser is trained."""
    name = "-without-".join([PARTS[recipe.denoiser].folder, *(w.replace(" ", "-") for w in left_out)])
    return name if tie is None else f"{name}-tied"


def _recipe(model: str) -> Recipe:
    if model not in RECIPES:
        raise typer.BadParameter(f"no embedded model is called {model!r}; {near(model, RECIPES)}")
    return RECIPES[model]


def _all_pictures(work: Path) -> Pictures:
    if not (work / "data" / "pictures.npz").is_file():
        raise typer.BadParameter(f"there are no pictures in {work / 'data'}; run the step 'data' first")
    return load_pictures(work / "data")


def _parts(work: Path, base: Path | None, names: Iterable[str]) -> dict[str, Path]:
    try:
        return find_parts(work, base, names)
    except FileNotFoundError as error:
        raise typer.BadParameter(str(error)) from error


def _pictures(work: Path) -> Pictures:
    return world.split(_all_pictures(work))[0]


if __name__ == "__main__":
    app()
