"""Pickling: what functions, classes and flows are called, and how they come elsewhere.

by_value    flows, stages and functions, by name or by value      reducing   what pickle would make something else of
homes       the public name of what is ours                       scripts    the name of what a script defines
"""
