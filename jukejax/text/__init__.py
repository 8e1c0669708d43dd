"""Label names and their ids, lyric alphabets and windows, word times: numpy only, never jax."""
