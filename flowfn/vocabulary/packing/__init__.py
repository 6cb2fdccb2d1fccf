"""Packing: sequences of any lengths in rows of one length.

cutting     before it: what is too long is split, ends are put to sequences
sequences   the stage      packers   which go together     forms   what datapoints are like     layouts   what rows are
balanced    for all ranks, so that their rows cost the same
segments    after it: cumulative lengths
"""
