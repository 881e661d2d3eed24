"""What the cards say: pictures generated, judged and shown."""
