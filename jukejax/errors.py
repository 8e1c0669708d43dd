"""Errors whose message tells a user what to mend."""


class ConfigError(ValueError):
    """A config that cannot be: the sentence says which field, why, and what would do."""
