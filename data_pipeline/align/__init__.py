"""When each word of a song is sung: voice, pronunciations, forced alignment and its scores."""
