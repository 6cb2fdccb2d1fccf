"""Shelves: datapoints kept in a folder.

shelf      all that is kept under one key
records    bytes by number, in files that many write at once
encoding   datapoints as bytes
"""
