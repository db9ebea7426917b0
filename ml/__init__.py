"""What a vector means: pure functions of text and arrays, free of Airflow, Spark, Postgres, environment and clock."""
