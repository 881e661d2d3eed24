"""What a prompt, and each of its words, tells of a picture, in nats."""
