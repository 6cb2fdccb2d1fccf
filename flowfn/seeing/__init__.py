"""Looking at flows. Looking never advances anything."""

from flowfn.seeing.describing import describe, print_datapoint
from flowfn.seeing.explaining import explain
from flowfn.seeing.progressing import progress
from flowfn.seeing.replaying import replay
from flowfn.seeing.timing import Speed, speed

__all__ = ["Speed", "describe", "explain", "print_datapoint", "progress", "replay", "speed"]
