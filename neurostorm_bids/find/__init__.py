"""Find the runs of a BIDS data set, and for each the files and transforms that it is read from."""
