"""Encode a run: cut it into windows, run the model on them, and relate them to head motion."""
