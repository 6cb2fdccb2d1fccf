"""Parquet and Arrow: reading, writing, groups of rows, those decoded last (decoding),
columns as Python's values (values)."""
