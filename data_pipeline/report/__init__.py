"""What is in a prepared data set: each song measured once, a page and JSON of all of them."""
