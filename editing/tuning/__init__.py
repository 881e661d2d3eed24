"""Changes of low rank that are learned by gradients; those in closed form are in ``methods``."""
