"""What a number owes to words, latents or activations: one method of captum, one target, one scalar each."""
