"""Methods text (a Jinja template of Markdown) and references that neurostorm_bids writes out for papers."""
