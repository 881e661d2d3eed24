"""Our edits as a technique of eval-unlearn: what it calls, what it gets, and what it is told.

With eval-unlearn itself where it is installed; elsewhere a stand-in calls what its runner calls.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from denoscope import Edit, load
from denoscope.editing import quickfix, uce
from denoscope.editing.export import pipeline
from denoscope.eval_unlearn import EditTechnique
from denoscope.models.errors import MissingFileError, NotFoundError, UsageError
from denoscope.models.synthetic.tiny import tiny_sd

PROMPTS = ["a red cat", "a dog"]
FEW = {"device": "cpu", "num_inference_steps": 2, "guidance_scale": 3.0}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, the same with an edit in its weights, and the edit."""
    there = tmp_path_factory.mktemp("eval")
    tiny_sd().save_pretrained(there / "plain")
    model = load(there / "plain")
    edit = 3.0 * quickfix(model, {"cat": "dog"})  # so far that 8 bits show it
    edit.save(there / "edit.safetensors")
    pipeline(model, edit, there / "edited")
    return there


def runner(factory: Callable[..., Any], config: dict[str, Any], prompts: Sequence[str], seed: int) -> Any:
    """What eval-unlearn 1.1's runners do with a technique."""
    technique = factory(**json.loads(json.dumps(config)))
    return technique.generate(prompts=list(prompts), seed=seed)


def config(home: Path, **more: Any) -> dict[str, Any]:
    return {"model_id": str(home / "plain"), **FEW, **more}


def with_file(home: Path, **more: Any) -> dict[str, Any]:
    return config(home, edit=str(home / "edit.safetensors"), **more)


def painted(folder: Path, prompts: Sequence[str], seed: int) -> list[Image.Image]:
    """Pictures of a pipeline as anybody calls it."""
    pipe = load(folder).pipe
    pipe.set_progress_bar_config(disable=True)
    how: dict[str, Any] = {"num_inference_steps": 2, "guidance_scale": 3.0}
    return [
        pipe(prompt=p, generator=torch.Generator().manual_seed(seed + i), **how).images[0]
        for i, p in enumerate(prompts)
    ]


def apart(a: Sequence[Image.Image], b: Sequence[Image.Image]) -> int:
    """The largest difference, of 255 levels."""
    return max(int(np.abs(np.asarray(x, int) - np.asarray(y, int)).max()) for x, y in zip(a, b, strict=True))


# exact ------------------------------------------------------------------------------------------------------


def test_a_file_paints_what_the_edited_pipeline_paints(home: Path) -> None:
    images = runner(EditTechnique, with_file(home, erase_concept="cat"), PROMPTS, 3)
    assert [type(i) for i in images] == [Image.Image] * 2
    assert apart(images, painted(home / "edited", PROMPTS, 3)) <= 1  # weights lie otherwise in memory
    assert apart(images, painted(home / "plain", PROMPTS, 3)) > 5


def test_a_method_is_the_same_edit_as_in_python(home: Path) -> None:
    given = config(home, method="uce", words={"cat": "dog"}, options={"keep": ["", "a red hat"]})
    made = EditTechnique(**json.loads(json.dumps(given)))
    assert made.edit == uce(load(home / "plain"), {"cat": "dog"}, keep=["", "a red hat"])
    assert EditTechnique(**config(home, method="uce/code", erase_concept="cat")).edit == uce(
        load(home / "plain"), {"cat": ""}, settings="code"
    )


# laws -------------------------------------------------------------------------------------------------------


def test_each_prompt_has_the_seed_after_the_one_before(home: Path) -> None:
    technique = EditTechnique(**with_file(home))
    both = technique.generate(PROMPTS, seed=3)
    assert apart(both[1:], technique.generate(PROMPTS[1:], seed=4)) == 0
    assert apart(both[1:], technique.generate(PROMPTS[1:], seed=3)) > 0
    assert apart(technique.generate(PROMPTS), technique.generate(PROMPTS)) > 0  # other noise at each call
    assert technique.generate([], seed=0) == []


def test_what_a_metric_asks_for_goes_before_the_configuration(home: Path) -> None:
    technique = EditTechnique(**with_file(home))
    more = technique.generate(PROMPTS[:1], seed=3, num_inference_steps=5)
    assert apart(more, technique.generate(PROMPTS[:1], seed=3)) > 0


def test_no_edit_is_the_plain_model(home: Path, tmp_path: Path) -> None:
    (0.0 * Edit.load(home / "edit.safetensors")).save(tmp_path / "none.safetensors")
    images = runner(EditTechnique, config(home, edit=str(tmp_path / "none.safetensors")), PROMPTS, 3)
    assert apart(images, painted(home / "plain", PROMPTS, 3)) == 0


# failures ---------------------------------------------------------------------------------------------------

BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({}, UsageError, "edit is None and method is None; give one of them"),
    ({"edit": "e.safetensors", "method": "uce"}, UsageError, "'e.safetensors' and method is 'uce'; give one"),
    ({"edit": "nowhere.safetensors"}, MissingFileError, "nowhere.safetensors"),
    ({"edit": "e.safetensors", "words": {"cat": "dog"}}, UsageError, "are for a method; 'e.safetensors' is"),
    ({"method": "uce"}, UsageError, "the method 'uce' needs words"),
    ({"method": "uec", "words": {"cat": "dog"}}, NotFoundError, "no method 'uec'.*did you mean 'uce'"),
    ({"method": "uce", "words": "cat"}, TypeError, "words"),
    ({"method": "uce", "words": {"cat": "dog"}, "options": {"kept": []}}, TypeError, "kept"),
    ({"methods": "uce"}, TypeError, "methods"),
]


@pytest.mark.parametrize(("given", "kind", "message"), BAD)
def test_a_configuration_that_cannot_be_is_told(
    home: Path, given: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        EditTechnique(**config(home, **given))


def test_an_edit_of_other_weights_is_refused(home: Path, tmp_path: Path) -> None:
    quickfix(load(tiny_sd(seed=1)), {"cat": "dog"}).save(tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match="was made for"):
        EditTechnique(**config(home, edit=str(tmp_path / "other.safetensors")))


def test_a_model_that_is_not_there_is_told(home: Path) -> None:
    with pytest.raises(NotFoundError, match="emojo"):
        EditTechnique(**{**with_file(home), "model_id": "emojo"})


# eval-unlearn -----------------------------------------------------------------------------------------------


def test_it_is_found_by_its_entry_point() -> None:
    (found,) = entry_points(group="eval_unlearn.techniques", name="denoscope")
    assert found.load() is EditTechnique


@pytest.mark.filterwarnings("ignore")
def test_eval_unlearn_runs_it_beside_its_own(home: Path, tmp_path: Path) -> None:
    pytest.importorskip("eval_unlearn")
    from eval_unlearn.registry import register_metric
    from eval_unlearn.runners import MultiBenchmarkRunner, SingleBenchmarkRunner
    from eval_unlearn.types import Dataset, MetricResult

    kept: list[Image.Image] = []

    @register_metric("kept")
    class Kept:
        def load_dataset(self) -> list[Any]:
            return [Dataset(prompts=PROMPTS, metadata={"source": "two"})]

        def update(self, images: list[Any], prompts: list[str], metadata: dict[str, Any]) -> None:
            kept[:] = images

        def compute(self) -> Any:
            return MetricResult("kept", float(len(kept)))

    one, multi = with_file(home, erase_concept="cat"), tmp_path / "multi"
    report = SingleBenchmarkRunner("denoscope", "kept", one, output_dir=str(tmp_path), seed=3).run()
    ours = list(kept)
    assert report["erase_concept"] == "cat"
    assert report["metric_result"]["value"] == 2.0
    assert len(list(tmp_path.rglob("*.png"))) == 2
    MultiBenchmarkRunner("denoscope", ["kept"], one, output_dir=str(multi), seed=3).run()
    assert apart(kept, ours) == 0
    theirs = {"model_id": str(home / "edited"), **FEW}
    SingleBenchmarkRunner("free_run", "kept", theirs, output_dir=str(tmp_path), seed=3).run()
    assert apart(kept, ours) <= 1
