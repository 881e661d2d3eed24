"""An edit in the evaluation of eval-unlearn: its file."""

from denoscope.eval_unlearn import EditTechnique


def start(source, task):
    return EditTechnique(
        model_id=source, edit=task.file, device="cpu", num_inference_steps=task.steps, guidance_scale=4.0
    )


def work(technique, task):
    return technique.generate(task.prompts, seed=0)
