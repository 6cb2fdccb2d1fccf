"""At home in other people's loops: flows as what a framework takes, datapoints as its tensors, its tables as sources.

Each function imports its library when it is called, and says what to install where that is missing. Files with two
words in their names import it at once, and are imported by the functions.

    torch                 tensors, on a device, and what a DataLoader takes
    torch_datasets        ... a flow as its IterableDataset
    jax                   JAX's arrays, on a device or over a mesh of them
    epochs                which epoch begins, where several processes begin it
    stateful              ... a flow in its distributed checkpoints
    lightning             a flow that Lightning's Trainer trains on and resumes
    tables                rows of pandas, polars and Arrow tables
    huggingface           flows as Hugging Face's datasets
    huggingface_examples  ... in classes of theirs
    forms                 datapoints as TensorFlow and Keras take them
    keras                 what Keras trains on
    keras_datasets        ... a flow as its PyDataset
    keras_backups         ... the callback that resumes training
    tensorflow            a flow as a tf.data.Dataset
    ray                   the work of a prefetch on a Ray cluster, and its data sets, both ways
    ray_rows              ... rows by index, and datapoints as rows
    dask                  ... on a Dask cluster
"""

from flowfn.interop import dask, ray
from flowfn.interop.huggingface import to_hf
from flowfn.interop.jax import to_jax
from flowfn.interop.keras import as_pydataset
from flowfn.interop.lightning import as_loader
from flowfn.interop.ray import from_ray, to_ray
from flowfn.interop.stateful import as_stateful
from flowfn.interop.tables import from_table
from flowfn.interop.tensorflow import as_tf_dataset
from flowfn.interop.torch import as_dataset, to_device, to_torch
from flowfn.pickling.homes import publish as _publish

_publish(__name__, globals())

__all__ = [
    "as_dataset",
    "as_loader",
    "as_pydataset",
    "as_stateful",
    "dask",
    "as_tf_dataset",
    "from_ray",
    "from_table",
    "ray",
    "to_device",
    "to_hf",
    "to_jax",
    "to_ray",
    "to_torch",
]
