# The edit, and the edited weights in a pipeline.
python trainscripts/uce_sd_erase.py --erase_concepts firefighter --guide_concepts person \
    --preserve_concepts "cook; farmer" --concept_type object --save_dir . --exp_name edit
python - <<'PYTHON'
from diffusers import DiffusionPipeline
from safetensors.torch import load_file
pipe = DiffusionPipeline.from_pretrained("CompVis/stable-diffusion-v1-4")
pipe.unet.load_state_dict(load_file("edit.safetensors"), strict=False)
PYTHON
