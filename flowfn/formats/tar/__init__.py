"""Tar shards in WebDataset's layout.

reading, writing   samples       index        which samples are where
extensions         what bytes are, by the name of their member
tapes              members       headers      block by block
"""
