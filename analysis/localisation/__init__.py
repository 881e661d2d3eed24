"""Where, and when, a word comes into the picture: methods beside causal mediation."""
