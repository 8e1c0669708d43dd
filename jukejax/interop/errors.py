"""The one error of importing and exporting."""

from jukejax.checkpoint import CheckpointError


class InteropError(CheckpointError):
    """A file of another project that cannot be taken: what is wrong, where, how to mend it."""
