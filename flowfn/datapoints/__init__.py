"""Datapoints: how they are taken apart and put together. Nothing here knows where they come from.

components   one of them, some of them, another one      columns      arrays of equal length, as a sequence
collating    values of a component become one            padding      arrays made equal, so that they stack
promotion    one dtype for several                       subclasses   arrays that carry more than numbers
buffers      the memory of large arrays, used again      unmade       datapoints that are made together, later
"""
