"""Where in the brain a prediction comes from, and whether the map can be trusted."""
