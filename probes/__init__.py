"""How we look: traces, interventions, directions, sweeps."""
