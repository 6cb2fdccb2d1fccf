"""Parquet and Arrow: reading, writing, groups of rows, those decoded last (decoding),
columns as Python's values (values); folders of such files (hugging_face)."""
