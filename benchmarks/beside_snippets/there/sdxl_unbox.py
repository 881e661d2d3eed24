"""The strongest feature of what a block adds to a picture, and the picture with more of it."""

import torch
from model_interfaces import create_model_adapter
from utils.loaders import load_pipeline, load_sae_bundle


def start(source, task):
    saes, _ = load_sae_bundle(source, torch.float32)
    return create_model_adapter(load_pipeline(source, torch.float32)), saes


def work(started, task):
    adapter, saes = started
    spec, block, sae = adapter.spec, task.site, saes[task.site]
    _, cache = adapter.generate_with_cache(
        task.prompt, task.steps, spec.guidance_scale, positions_to_cache=list(spec.code_to_block.values())
    )
    features, maps = adapter.process_cache(cache, saes, None)
    strongest = features[block][0]
    more = torch.from_numpy(maps[block][..., strongest]).to("cuda") * 2.0

    def hook(module, inputs, output):
        return spec.add_feature_on_area(sae, strongest, more, module, inputs, output)

    return adapter.apply_edit(task.prompt, block, hook, task.steps, spec.guidance_scale)
