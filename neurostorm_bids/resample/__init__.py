"""Place a run in the model's grid: world coordinates, one interpolation, time, normalisation."""
