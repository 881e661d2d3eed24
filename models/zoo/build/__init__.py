"""How the embedded models were made, from artwork to weights."""
