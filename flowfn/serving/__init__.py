"""One loader for several trainings: a flow that is served, in this machine's memory or over a network.

server      serve: the address, the state, and how it runs
consumers   who is there, and what is sent to whom
passes      a pass of the served flow, shared out or given to all
making      ... in a thread of its own
client      connect: what is served, as a source
connection  ... and how it is got from one server
memory      datapoints in shared memory, between the two
messages    datapoints on a wire, and what the two say
addresses   where servers are, and keys
"""

from flowfn.pickling.homes import publish as _publish
from flowfn.serving.addresses import new_key
from flowfn.serving.client import connect
from flowfn.serving.server import serve

_publish(__name__, globals())

__all__ = ["connect", "new_key", "serve"]
