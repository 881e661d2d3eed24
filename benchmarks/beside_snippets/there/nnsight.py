"""What one module gives, at every step of two prompts; of both guidance branches: the second half."""

import torch
from nnsight.modeling.diffusion import DiffusionModel


def start(source, task):
    return DiffusionModel(source, dispatch=True, dtype=torch.float32)


def work(model, task):
    how = {"num_inference_steps": task.steps, "guidance_scale": 4.0, "seed": 0, "output_type": "latent"}
    with torch.no_grad(), model.generate(task.prompts, **how) as tracer:
        kept = list().save()
        for _ in tracer.iter[: task.steps]:
            attention = model.unet.mid_block.attentions[0].transformer_blocks[0].attn2
            kept.append(attention.to_out[0].output[len(task.prompts) :].clone())
    return torch.stack(kept)
