"""The one error that users are meant to see: what is wrong, with which file, and what to do."""


class NeurostormError(Exception):
    """A problem with the user's input or machine, told in one line; every other exception is a bug of ours."""
