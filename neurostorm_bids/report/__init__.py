"""Show results: figures, the report of a subject, and the methods text."""
