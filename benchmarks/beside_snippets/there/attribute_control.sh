# The pairs, the direction, and one picture at two strengths of it.
cat > configs/prompts/people/gender.yaml <<'YAML'
tag: people/gender
prompts:
- {prompt_target: cook, prompt_positive: woman cook, prompt_negative: man cook, pattern_target: cook}
- {prompt_target: judge, prompt_positive: woman judge, prompt_negative: man judge, pattern_target: judge}
- {prompt_target: pilot, prompt_positive: woman pilot, prompt_negative: man pilot, pattern_target: pilot}
prefixes: [a noto emoji of a]
YAML
python learn_delta_naive_clip.py device=cuda:0 model=sdxl prompts=people/gender
python - <<'PYTHON'
import torch
from attribute_control import EmbeddingDelta
from attribute_control.model import SDXL
from attribute_control.prompt_utils import get_mask_regex
model = SDXL(pipeline_type="diffusers.StableDiffusionXLPipeline", model_name=SDXL_ID, pipe_kwargs={})
delta = EmbeddingDelta(model.dims)
delta.load_state_dict(torch.load("outputs/learn_delta_naive_clip/.../checkpoints/delta.pt")["delta"])
told = model.embed_prompt("a photo of a guard")
noun = get_mask_regex(told.prompt, "guard")
noise = [torch.Generator().manual_seed(0) for _ in range(2)]
pictures = model.sample([delta.apply(told, noun, a) for a in (0.0, 1.0)], None, generator=noise)
PYTHON
