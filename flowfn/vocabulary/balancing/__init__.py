"""Balancing: work divided into equal parts, planned on lengths alone.

steps        rows or batches in steps, in each of which all ranks have nearly the same to do
filling      sequences in rows of one capacity, the rows of nearly equal cost
partitions   costs in parts as equal as possible
costs        what a datapoint costs, as exact integers
"""
