"""The unconditional UNet: what it is told about the time."""

import torch

from denoscope.models.load import load
from denoscope.models.synthetic.tiny import tiny_ddpm


@torch.no_grad()
def test_fractional_times_are_told_whole():
    model = load(tiny_ddpm())
    told = []
    hook = model.denoiser.time_proj.register_forward_pre_hook(lambda _, args: told.append(float(args[0][0])))
    for t in (593.0, 593.75):
        model.predict(model.noise([0]), model.step_at(t=t), model.encode([""]))
    hook.remove()
    assert told == [593.0, 593.75]
