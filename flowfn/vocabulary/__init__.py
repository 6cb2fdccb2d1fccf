"""The vocabulary: the stages and sources that users put together, a file for each intent.

transform     one datapoint at a time                 nesting    over the elements of each datapoint
batching      together and apart                      rebatching, bucketing   other batches: of one size, alike
multiples     again, so that their number comes out even
ordering      which come, and when                    repeating  more than once
streaming     as one stream                           combining  several sources
guarding      what happens when a stage fails         making, receiving   sources: files, fakes; queues

packing       sequences in rows of one length         mixing     sources in proportions         keeping   caches

Words of users that lie elsewhere: `flow`, `from_arrays` in `flowfn.flows.sources`, `pipe` in `flowfn.flows.stages`;
`stack`, `as_list`, `pad` in `flowfn.datapoints`; `prefetch` in `flowfn.parallel`; `progress`, `check_inputs` in
`flowfn.seeing`.

What a stage is, is said in `flowfn.flows`; how outputs come from inputs, in `flowfn.kinds`. Nothing here knows of
workers.
"""
