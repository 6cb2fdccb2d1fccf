"""The vocabulary: the stages and sources that users put together, and in which file each is.

transform     one datapoint at a time: map, map_component, select, filter, filter_map, flat_map, enumerate, tap,
              seeded, per_process
nesting       over the elements of each datapoint: inside
batching      together and apart: batch, unbatch, window, collate
rebatching    batches of one size out of others: rebatch
bucketing     batches of what is alike: batch_by_key, batch_by_length, shape_of
planning      batches of equal work for all ranks: batch_by_cost
multiples     again, so that their number comes out even: pad_to_multiple
packing       sequences in rows of one length: pack, best_fit, first_fit, concat_then_split, balanced_fit, split_long,
              with_ends, cu_seqlens
balancing     how work is divided equally, by its costs
ordering      which come, and when, by index: shuffle, sample, shard, take, skip, slice, split, subset
repeating     more than once: repeat, repeat_each, cycle, epoch_of
streaming     as one stream: shuffle_buffer, interleave, scan, take_while, unique
combining     several sources: concat, zip, zip_components, mix, quotas
mixing        what mix does: whose turn it is, and how it goes on; weights that change: phases
guarding      what happens when a stage fails: guard
keeping       once and for all: cache, cache_to, freeze
making        sources: files, fake
receiving     sources: from_queue

Words of users that lie elsewhere: flow, from_arrays (`flowfn.flows.sources`), pipe, compose, stage
(`flowfn.flows.stages`), stack, as_list (`flowfn.datapoints.collating`), pad (`flowfn.datapoints.padding`), prefetch,
warm_up, shut_down (`flowfn.parallel`), and what is looked at by (`flowfn.seeing`).

What a stage is, is said in `flowfn.flows`; how outputs come from inputs, in `flowfn.kinds`. Nothing here knows of
workers.
"""
