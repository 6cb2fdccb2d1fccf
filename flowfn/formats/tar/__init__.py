"""Tar shards in WebDataset's layout.

reading, writing   samples       extensions   what bytes are, by the name of their member      index   which samples are
where tapes              members       headers      block by block
"""
