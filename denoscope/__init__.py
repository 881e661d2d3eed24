"""denoscope: look inside a diffusion model while it samples, and change exactly what you find."""
