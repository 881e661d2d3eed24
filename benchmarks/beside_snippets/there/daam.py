"""Where a word is read, in four pictures, one after the other; told of 24 tokens and 16 x 16 latents."""

import torch
from daam import trace
from diffusers import DiffusionPipeline


def start(source, task):
    return DiffusionPipeline.from_pretrained(source, dtype=torch.float32)


def work(pipe, task):
    maps = []
    for i, prompt in enumerate(task.prompts):
        with torch.no_grad(), trace(pipe) as heat:
            heat.latent_hw = pipe.unet.config.sample_size**2
            for hooker in heat.module:
                hooker.context_size, hooker.latent_hw = pipe.tokenizer.model_max_length, heat.latent_hw
            noise, how = torch.Generator().manual_seed(i), {"guidance_scale": 4.0, "output_type": "latent"}
            pipe(prompt, num_inference_steps=task.steps, generator=noise, **how)
            maps.append(heat.compute_global_heat_map().compute_word_heat_map(task.word).heatmap)
    return torch.stack(maps)
