"""Spark jobs: pure functions of `ml` run over many rows."""
