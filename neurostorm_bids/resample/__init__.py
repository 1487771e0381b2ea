"""Resample a run to the model's grid: world coordinates, one interpolation, time, normalisation."""
