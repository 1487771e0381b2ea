"""The participant level: each run through all rooms, then the tables and reports of its subject."""
