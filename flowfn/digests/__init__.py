"""Digests: what the datapoints of a pipeline depend on, the same in every process and on every day.

pipelines   of a flow and all it is made of      codes   of functions, classes and modules, by what they do
"""
