"""Flows: what a user holds, what is iterated, and what is saved.

flow          the recipe: a tree of parts         sources       its leaves, and the nodes that read them
hugging_face  ... of Hugging Face's streams        refusals      what is no source, and what makes it one
definitions   what a decorated function is        stages        functions from flow to flow, and `pipe`
iterating     the iterator: one pass over it      opening       what a stage reads besides its source
states        what a checkpoint holds             schema        what one must be
mix_rows      how far the sources of a mix have come        mixtures      ... and what a state says of it
picks         ... and which of them its outputs came from
naming        what sources are called            skipping      what is left out of a pass
loaders       where a loader of torch reads a flow
translating   messages that name the right word   dialects      what other libraries call it

A flow is a tree of *parts*: a stage or a source, with the flows it takes from. Nothing is read before it is iterated;
every part is bound to a *node* (`flowfn.kinds`) when it is first asked; the last node is asked
for outputs, and asks on:

    for datapoint in flow:        iter(flow) ── parts ──▶ nodes, all fixed by one Run (seed, epoch, where to start)

        FlowIterator ◀── datapoints ──  batch  ◀──  map  ◀──  shuffle  ◀──  source
                     ── which ones? ─▶         ──▶       ──▶           ──▶
        state_dict(): seed, epoch, position, fingerprint; where nodes that cannot be indexed may start again
"""
