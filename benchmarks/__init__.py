"""Measurements of neurostorm_bids that anyone can repeat: ``python -m benchmarks``."""
