"""Where, and when, a word comes into the picture: four methods beside causal mediation."""
