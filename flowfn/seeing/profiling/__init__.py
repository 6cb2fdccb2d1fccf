"""Why a pipeline is slow, and which knob to turn.

probing      a copy of the tree that is timed          logs        who had control when
recording    what was written down, as arrays
lanes        which stages ran beside which             modelling   what would become of it on paper
knobs        what may be turned                        verdicts    what holds it, in words
profiles     what came of it                           summing     ... of what was written down
profiling    a pass, profiled
tuning       knobs turned, and measured                racing      ... by turns
alternatives what many pipelines do well with          monitoring  counters that may stay on
ranks        profiles of several ranks beside each other
tables       ... on a screen                           pages       ... in a browser
spans        ... over time                             traces      ... as a trace for Chrome and Perfetto
"""

from flowfn.seeing.profiling.monitoring import Counters, monitor
from flowfn.seeing.profiling.profiles import Profile
from flowfn.seeing.profiling.profiling import Profiler, profile
from flowfn.seeing.profiling.tuning import Tuning, tune

__all__ = ["Counters", "Profile", "Profiler", "Tuning", "monitor", "profile", "tune"]
