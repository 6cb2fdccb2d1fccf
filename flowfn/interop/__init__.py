"""At home in other people's loops: flows as what a framework takes, datapoints as its tensors, its tables as sources.

Each function imports its library when it is called, and says what to install where that is missing.

    torch           tensors, on a device, and what a DataLoader takes
    torch_datasets  ... a flow as its IterableDataset
    jax             JAX's arrays, on a device or over a mesh of them
    epochs          which epoch begins, where several processes begin it
    stateful        ... a flow in its distributed checkpoints
    lightning       a flow that Lightning's Trainer trains on and resumes
"""

from flowfn.interop.jax import to_jax
from flowfn.interop.lightning import as_loader
from flowfn.interop.stateful import as_stateful
from flowfn.interop.torch import as_dataset, to_device, to_torch
from flowfn.pickling.homes import publish as _publish

_publish(__name__, globals())

__all__ = ["as_dataset", "as_loader", "as_stateful", "to_device", "to_jax", "to_torch"]
