"""Machinery that knows nothing of fMRI: processes, signals, files, locks, options, progress."""
