"""The commands: each parses its options, calls the library and the data pipeline, and prints."""
