"""An edit in the evaluation of eval-unlearn, without our technique: a pipeline with it in its weights."""

from eval_unlearn.techniques.free_run.wrapper import FreeRunTechnique

import denoscope
from denoscope.editing import export


def start(source, task):
    export.pipeline(denoscope.load(source), denoscope.Edit.load(task.file), task.folder)
    return FreeRunTechnique(
        model_id=task.folder, device="cpu", num_inference_steps=task.steps, guidance_scale=4.0
    )


def work(technique, task):
    return technique.generate(task.prompts, seed=0)
