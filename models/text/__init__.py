"""Reading text: tokens that still know their words, and what the encoders answer."""
