"""Spark reads and writes tables of Postgres with pgvector: `docs/pgvector-source.md`.

The package needs pyspark, psycopg, pyarrow and numpy, and nothing else of this project: it may be copied into another.
"""
