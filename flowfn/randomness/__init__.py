"""Randomness: numbers that depend on what is computed, never on who computes it.

generators   keys, generators, permutations      drawing   indices, with and without replacement
"""
