"""Packing: sequences of any lengths in rows of one length.

sequences   the stage      packers   which go together      layouts   what is in a row, and the arrays of it
balanced    for all ranks, so that their rows cost the same
"""
