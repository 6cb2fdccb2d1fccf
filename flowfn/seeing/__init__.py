"""Looking at flows. Looking never advances anything.

describing    what datapoints look like      explaining   what a flow is made of;  remarking: what may be better
timing        how fast they come             progressing  a bar
replaying     an error, seen again           resuming     a state, in words
watching      which stage changes its inputs
"""

from flowfn.seeing.describing import describe, print_datapoint
from flowfn.seeing.explaining import explain
from flowfn.seeing.progressing import progress
from flowfn.seeing.replaying import replay
from flowfn.seeing.timing import Speed, speed

__all__ = ["Speed", "describe", "explain", "print_datapoint", "progress", "replay", "speed"]
