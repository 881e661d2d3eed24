"""Pictures over the strengths of a direction: as a value, a figure, a page with a slider, and a widget."""
