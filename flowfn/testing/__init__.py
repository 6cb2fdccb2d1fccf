"""The laws of flows, for the library's own stages and for yours.

laws         the eight laws, and `check`, which tries them all
strategies   random compositions of the built-in stages (hypothesis)
"""

from flowfn.pickling.homes import publish as _publish
from flowfn.testing.laws import LawBroken, check, left_behind, outputs, pipelines, same

_publish(__name__, globals())

__all__ = ["LawBroken", "check", "left_behind", "outputs", "pipelines", "same"]
