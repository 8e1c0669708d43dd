"""Plans for machines that are not at hand: compile for them, and count memory, bytes and time."""
