"""How rankings are measured: what is held out, what a list is worth beyond hits, and whether two runs differ."""
