"""The loop: how a run is begun, what a step is, noise and schedulers."""
