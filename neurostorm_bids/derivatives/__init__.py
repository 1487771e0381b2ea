"""Write results as BIDS derivatives, and tell whether they are there already."""
