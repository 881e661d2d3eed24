"""How guidance is looked at: what each part added, how far a composition is off, fits of LinearAG."""
