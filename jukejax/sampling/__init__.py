"""From a request to codes and sound, of songs of any length, level by level.

Read `plan` (windows), `decode` (one token at a time, with caches), `draw` (temperature, top-k,
top-p), and `sample_dir` (what is on disk, so that an interrupted job continues).
"""
