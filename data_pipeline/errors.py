"""The one error type of the data pipeline."""


class DataError(ValueError):
    """Something is wrong with the data; the message says what, where and how to mend it."""
