"""Write tiny pipelines in the layouts of their first publication, for families beside Stable Diffusion 1."""

from typing import Any

from denoscope.models.opening.ldm_keys import unet_state, vae_state
from denoscope.models.opening.sd3_keys import sd3_state
from denoscope.models.opening.text_keys import clip_state, open_clip_state
from tests.models.opening.ldm_layout import write


def write_sdxl(pipe: Any, path: Any) -> None:
    """UNet, autoencoder, the first text encoder as CLIP's, the second as OpenCLIP's."""
    write(
        path,
        {
            "model.diffusion_model": unet_state(pipe.unet),
            "first_stage_model": vae_state(pipe.vae),
            "conditioner.embedders.0.transformer": clip_state(pipe.text_encoder),
            "conditioner.embedders.1.model": open_clip_state(pipe.text_encoder_2),
        },
    )


def write_sd3(pipe: Any, path: Any) -> None:
    """The transformer with q, k and v in one, the autoencoder, three text encoders by prefix."""
    write(
        path,
        {
            "model.diffusion_model": sd3_state(pipe.transformer),
            "first_stage_model": vae_state(pipe.vae),
            "text_encoders.clip_l.transformer": clip_state(pipe.text_encoder),
            "text_encoders.clip_g.transformer": clip_state(pipe.text_encoder_2),
            "text_encoders.t5xxl.transformer": pipe.text_encoder_3.state_dict(),
        },
    )
