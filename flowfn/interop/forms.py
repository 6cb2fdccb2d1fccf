"""Datapoints as TensorFlow and Keras take them: tuples for lists of components, arrays for lists of strings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from flowfn.datapoints.components import Datapoints, as_tuple_like


def with_tuples(datapoint: Any) -> Any:
    """A datapoint whose lists of components are tuples, however deep; lists of strings are arrays.

    A list that is no datapoint but a component of one, and holds strings alone, is one component: their array.

    >>> with_tuples([[1, 2.5], {"names": ["a", "b"]}])
    ((1, 2.5), {'names': array(['a', 'b'], dtype=object)})
    """
    if isinstance(datapoint, Datapoints):
        return np.array([*datapoint], object)
    if isinstance(datapoint, (list, tuple)):
        components = [_form_component(value) for value in datapoint]
        return as_tuple_like(datapoint, components)  # type: ignore[arg-type]
    if isinstance(datapoint, Mapping):
        return {key: _form_component(value) for key, value in datapoint.items()}
    return datapoint


def _form_component(value: Any) -> Any:
    if isinstance(value, list) and value and all(isinstance(one, (str, bytes)) for one in value):
        return np.array(value, object)
    return with_tuples(value)
