"""Training: data, objective, what is tuned, and one engine for every kind of training."""
