"""The commands: neurostorm, neurostorm-hpc, neurostorm-model, neurostorm-demo."""
