"""Balancing: work divided into equal parts, planned on lengths alone.

plans        which datapoints make whole steps, and what each rank does in them
steps        shares of work dealt to ranks, so that in each step all have nearly the same to do
filling      sequences in rows of one capacity, the rows of nearly equal cost
partitions   costs in parts as equal as possible
costs        what a datapoint costs, as exact integers
"""
