"""Looking at flows. Looking never advances anything.

describing    what datapoints look like      explaining   what a flow is made of;  remarking: what may be better
misplaced     which stages would do better elsewhere      detailing    what each holds, and why it stays
timing        how fast they come             progressing  a bar
replaying     an output, made again          tracing      which records it was made of
resuming      a state, in words              weighing     how equally work is divided among ranks
watching      which stage changes its inputs
cells         type, size and range of a value      summing      many datapoints, component by component
sheets        their images in one picture
looking/      every datapoint after every stage   pictures     arrays, drawn
profiling/    why it is slow, and which knob to turn
pages/        pages of HTML that stand alone
"""

from flowfn.pickling.homes import publish as _publish
from flowfn.seeing.describing import describe, print_datapoint
from flowfn.seeing.explaining import explain
from flowfn.seeing.looking import Look, look
from flowfn.seeing.profiling import Profile, monitor, profile, tune
from flowfn.seeing.progressing import progress
from flowfn.seeing.replaying import replay
from flowfn.seeing.resuming import describe_state
from flowfn.seeing.timing import Speed, speed
from flowfn.seeing.tracing import Origin, origins
from flowfn.seeing.watching import check_inputs
from flowfn.seeing.weighing import balance

__all__ = [
    "Look",
    "Origin",
    "Profile",
    "Speed",
    "balance",
    "check_inputs",
    "describe",
    "describe_state",
    "explain",
    "look",
    "monitor",
    "origins",
    "print_datapoint",
    "profile",
    "progress",
    "replay",
    "speed",
    "tune",
]

_publish("flowfn", globals())
