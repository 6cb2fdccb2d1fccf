"""Crossing: values from process to process.

transport   pickle 5, large buffers in shared memory (slots)
reducers    arrays and tensors by their bytes      errors   whole
"""
