"""Mixing: several sources in given proportions.

arguments   what users write, read and refused in words
plans       what is asked for, and the route where all sources can be indexed
blending    the mix in a tree: by its route, or with all sources open at once
reading     one pass over it with all sources open
shares      which source comes next, where datapoints are counted
deadlines   and where they are measured
units       datapoints with their names, and how many units they have
schedules   weights that change on the way, or have a temperature
"""
