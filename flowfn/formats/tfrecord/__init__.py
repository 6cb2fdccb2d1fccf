"""TFRecord: reading, writing, the framing of records, where each begins (indexing),
and `tf.train.Example` (examples)."""
