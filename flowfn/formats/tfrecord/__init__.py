"""TFRecord: reading, writing, framing (of records), indexing (where each begins), examples (`tf.train.Example`)."""
