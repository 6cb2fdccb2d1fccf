"""The five kinds: how the outputs of a stage come from its inputs, and all that follows from it, written once.

parts      what stages and sources are, and the ways through trees of them
runs       what fixes a pass, and its outputs     nodes       each, and what all nodes have
groups     so many inputs make an output          readers     who reads what, where several are read in turns
orders     output i is some input                 routes      which one;  sections: where inputs are read in order only
streams    expand and stream, read in order       tallies     what guarded stages count
losses     what lets nothing through                 traces      what an output is made of
bypass     a pass round what is left out          ranges      sets of indices
failures   what an error says                     notes       what is written on it

Indices go up, datapoints come down. Asked for outputs [6, 7] of batches of 3 of a shuffled source:

                  [6, 7]                [18..23]               [4, 41, 7, 0, 19, 33]
    outputs ◀─── group ◀────────────── order (route) ◀──────────────── source
             two batches   six datapoints            the same six, read

A node that can be indexed answers for any block of indices at once. One that cannot (expand, stream, and all behind
them) is read from its beginning or from an *anchor*: a fact of the form "after so many outputs I stood at these
positions of my sources".
"""
