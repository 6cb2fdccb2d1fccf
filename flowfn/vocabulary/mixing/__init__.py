"""Mixing: several sources in given proportions.

plans       what is asked for, and the route where all sources can be indexed
blending    the mix in a tree: by its route, or with all sources open at once
shares      which source comes next
"""
