"""Crossing: values from process to process.

transport   pickle 5, large buffers in shared memory (slots)
reducers    arrays and tensors by their bytes      bundles  many small ones as one      errors   whole
"""
