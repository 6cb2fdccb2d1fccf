"""Keras: a flow of batches as what `fit`, `evaluate` and `predict` take, on each of its backends."""

from __future__ import annotations

from typing import Any

from flowfn.extras import needed
from flowfn.flows.sources import flow as as_flow
from flowfn.flows.translating import speaks
from flowfn.functions import around_a_pipe


@around_a_pipe
@speaks
def as_pydataset(flow: Any) -> Any:
    """A flow of batches as the `keras.utils.PyDataset` that `fit`, `evaluate` and `predict` take.

    `flow` is a flow, or anything that `flow` takes. A batch is `[x, y]`, `[x, y, weights]`, or `x` alone (an array or a
    dict); lists of components become tuples, since Keras takes them so. `model.fit(flow)` itself is refused by
    Keras ("Unrecognized data type").

    Each pass is an epoch of the flow, from the flow's own epoch on: what was broken off is followed by the next epoch,
    while what Keras reads to build a model, and `predict`, use none up. `evaluate` does, so give it, and
    `validation_data`, a data set of its own: `as_pydataset(validation)`. `set_epoch` sets the epoch of the next pass.
    With `steps_per_epoch` below the number of batches an epoch of Keras is that part of a pass, and the next goes on.

    Batches come in the flow's own order, whatever `shuffle` is in `fit` (its default would shuffle them by Python's
    `random`). They are read one after another: `prefetch` in the flow is what makes them in threads or processes, and
    `workers` of Keras stays 1.

    Where the number of batches is not known, or there is no end of them, one pass follows the other: give
    `steps_per_epoch`, or `steps` to `evaluate` and `predict`, for Keras takes such a data set to be endless.

    `as_pydataset(flow).backup_and_restore(folder, save_freq=100)` is the callback that resumes training exactly, in the
    middle of an epoch too. The model has to be built when `fit` is called.

    Raises:
        ImportError: keras is not installed.
        ValueError: the flow gives no batch.

    >>> import flowfn as ff
    >>> import numpy as np
    >>> x, y = np.ones((8, 4), "f4"), np.ones((8, 1), "f4")
    >>> batches = as_pydataset(ff.pipe(ff.from_arrays(x, y), ff.shuffle(), ff.batch(4)))  # doctest: +SKIP
    >>> model.fit(batches, epochs=2, callbacks=[batches.backup_and_restore("backup")])  # doctest: +SKIP
    """
    needed("keras", "as_pydataset()", extra="keras")
    from flowfn.interop.keras_datasets import FlowBatches

    return FlowBatches(as_flow(flow, "as_pydataset"))
