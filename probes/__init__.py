"""How we look: interventions, traces, directions, dictionaries."""
