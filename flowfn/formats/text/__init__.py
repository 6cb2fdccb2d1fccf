"""Text: CSV (csv_reading, csv_writing), JSON lines (json_lines), SVMlight (sparse),
and what lines have in common (record_files, kept_starts)."""
