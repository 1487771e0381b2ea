"""The figures of a run: alignment with the template, signal and head motion, and how the embedding changes."""
