"""Which few channels, tokens or rows carry everything, and what is left without them."""
