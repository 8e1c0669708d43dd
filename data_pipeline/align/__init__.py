"""When each word of a song is sung: the voice, pronunciations, forced alignment, its scores."""
