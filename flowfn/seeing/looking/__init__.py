"""`look`: every datapoint after every stage, on one page.

looking      the pass that is looked at, and what is found      calls        the call that makes a datapoint again
recording    datapoints noted as they pass, and their time      drawing_anew what else a random stage would draw
following    which outputs went into which                      page, text   what is found, in HTML and in a terminal
views        a datapoint, seen: a tree of what is in it; what differs from the one before
notebooks    a flow in a notebook
overlays     masks, boxes and points over images

    flow --> recorded copy --> ways up (which spots are wanted) --> one pass (they are noted) --> rows of cells
"""

from flowfn.seeing.looking.looking import look
from flowfn.seeing.looking.page import Look

__all__ = ["Look", "look"]
