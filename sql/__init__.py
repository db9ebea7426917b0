"""What is stored and served, as SQL, and the migrator that applies it."""
