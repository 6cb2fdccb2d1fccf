"""A mix in a tree: by its route where that can be had, and otherwise with all its sources open at once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from flowfn import rules
from flowfn.flows.mix_rows import COUNTED, MEASURED, HeldOutputs, MixProgress, MixRow, RowForm, SourceProgress, Standing
from flowfn.flows.picks import MOST_PICKS, Picked, PickLog, picks_of, picks_text
from flowfn.flows.stages import stage
from flowfn.functions import renamed
from flowfn.kinds.nodes import known_length
from flowfn.kinds.orders import Order
from flowfn.kinds.runs import Anchor, EpochForm, Length, Outputs, Run
from flowfn.randomness.generators import drawn_key, generator
from flowfn.vocabulary.mixing.plans import CYCLING, MixPlan, MixRoute, given_before, owed
from flowfn.vocabulary.mixing.reading import Measuring, Mixing
from flowfn.vocabulary.mixing.units import whole


class MixNode(Order):
    """Mixes its sources: by a route where all can be indexed and weights are numbers,
    by reading them in turn elsewhere."""

    names_sources = True

    def setup(self) -> None:
        """Weights that are a function of the step, and shares of units, have to be followed step by step."""
        super().setup()
        asked, steady = self.part.arguments, all(source.steady for source in self.sources)
        until, self.measured = asked["until"], bool(asked.get("measured"))
        self.scheduled = callable(asked["weights"])
        self.in_rounds = until in CYCLING or asked.get("epochs") is not None
        self.varies = self.in_rounds and not steady
        self.seekable = self.seekable and not (self.scheduled or self.varies or self.measured)
        self.steady = steady and not ((self.part.random or self.measured) and until in ("first", "cycle_all"))
        self.form = RowForm(len(self.sources), MEASURED if self.measured else COUNTED)

    @property
    def names(self) -> Any:
        """What the sources are called."""
        return self.part.arguments["names"]

    def unknown(self) -> str:
        """A schedule, or sizes that are not known before, are to blame themselves."""
        if self.measured:
            return "unit= has mix go by the size of each datapoint"
        return "the weights of mix are a function of the step" if self.scheduled else super().unknown()

    def plan(self, run: Run) -> MixPlan:
        """What the stage asks for in a run."""
        made: MixPlan = self.part.order((), **({"rng": generator(self.key(run))} if self.part.random else {}))
        return made

    def lengths(self, run: Run) -> tuple[Length, ...]:
        """Those of the sources, where they are the same in every round."""
        return tuple(None if self.in_rounds and not source.steady else source.length(run) for source in self.sources)

    def first(self, run: Run) -> MixRow:
        """The row with which the pass began."""
        return self.form.first(run.anchors.get(self.place), run)

    def new_route(self, run: Run, lengths: Any) -> MixRoute:
        """The route over sources so long."""
        first = self.first(run)
        return MixRoute(
            self.plan(run), lengths, self.form.unpacked(first), picks_of(self.form.again(first), len(self.sources))
        )

    def length(self, run: Run) -> Length:
        """That of the route."""
        if self.scheduled or self.measured or None in self.lengths(run):
            return math.inf if self.part.arguments["until"] == "forever" else None
        return self.route(run).length

    def labels(self, run: Run) -> tuple[int, int]:
        """Counted anew, after the steps of the mix that this one went on from."""
        return self.rank + self.world * self.form.unpacked(self.first(run)).before, self.world

    def stream(self, run: Run, start: int = 0, lineage: bool = False) -> Outputs:
        """Over streams all sources are open at once, each in its round."""
        if self.seekable:
            return super().stream(run, start, lineage)
        anchor = run.anchor(self.place, start, 0)
        if not anchor.outputs:
            begun = self.beginning(run)
            anchor = begun._replace(read=anchor.read or begun.read)
        if anchor.outputs > start:
            raise given_before(start)
        mixing = (Measuring if self.measured else Mixing)(self, run, anchor)
        outputs = mixing.outputs = Outputs(iter(mixing), self, mixing.live, anchor.outputs, mixing.tell)
        outputs.earlier = mixing.tell_before_last
        outputs.drop(start - anchor.outputs)
        if (trace := run.traced(self.place)) is not None:
            trace.used = mixing.uses()
        return outputs.labelled(self.numbers(start, self.labels(run)), start) if lineage else outputs

    def beginning(self, run: Run) -> Anchor:
        """Where the pass began, or went on from another mix: perhaps with picks that are made again."""
        first, known = self.first(run), run.anchors.get(self.place)
        if not first:
            return Anchor(run.epoch, 0, (), known and known.read)
        again = picks_of(self.form.again(first), len(self.sources)) or []
        row = self.form.held(first) + first
        return Anchor(run.epoch, self.form.unpacked(first).start - len(again), row, known and known.read)

    def made_again(self, run: Run) -> Picked | None:
        """What had been picked where the pass went on from another mix, if that is picked again."""
        first = self.first(run)
        start, picks = self.form.unpacked(first).start, picks_of(self.form.again(first), len(self.sources)) or []
        return Picked(PickLog(start - len(picks), picks), start, first[: self.form.size]) if picks else None

    def anchor(self, epoch: int, mix: Mapping[str, Any]) -> Anchor:
        """Where to begin so as to go on from a mix of other sources: those of the same names have come so far.

        If a stage behind it still needs what was picked before, that is picked again.
        """
        here = self._standing(mix["sources"], mix["steps"] - mix.get("at", 0), mix.get("at", 0), mix.get("units", 0))
        if "picks" not in mix:
            return Anchor((epoch,), 0, self._row(here))
        places = {str(name): place for place, name in enumerate(self.names)}
        named = [sorted(mix["sources"])[pick] for pick in picks_of(mix["picks"], len(mix["sources"])) or ()]
        if lost := Counter(name for name in named if name not in places):
            counts = " and ".join(f"{count} of {name!r}" for name, count in lost.items())
            raise ValueError(
                f"load_state_dict(): stages behind the mix may hold datapoints (at most {counts}) of sources that are "
                "not in it any more. Leave these in, with a weight of 0 from now on: weights=phases({0: {...}}) gives "
                "those none that it does not name"
            )
        before = self._standing(mix["held"], here.before, mix["at"] - len(named), here.spent)
        held, again = self._row(before), picks_text([places[name] for name in named], len(places))
        return Anchor((epoch,), 0 if self.seekable else before.start, (*held, *self._row(here), again, *held))

    def told(self, run: Run, known: Anchor, start: int) -> Anchor:
        """An anchor without picks that are not made again any more, now that outputs from `start` on are still held."""
        first = self.form.first(known, run)
        if not self.form.again(first):
            return known
        if not self.seekable:
            row, begins = known.inputs[: self.form.size], self.form.unpacked(first).start
            begun = self.form.without_past(row, first, known.outputs)
            return known._replace(inputs=(begun if known.outputs == begins else row) + begun)
        row = self.form.packed(start, self.form.unpacked(first).before, zip(*self.route(run).begun(start)))
        begun = self.form.without_past(row, first, start)
        return known if begun == first else known._replace(inputs=begun if begun == first[: len(row)] else row + begun)

    def recent(self, mix: Mapping[str, Any], same: bool) -> Picked:
        """What had been picked when a state was saved; `same`: by the same pipeline."""
        held = self.held(mix)
        log = PickLog(held.since, held.picks)
        here = self._standing(mix["sources"], mix["steps"] - mix["at"], mix["at"], mix.get("units", 0))
        if same:
            here = here._replace(sources=[SourceProgress(*mix["sources"][str(name)]) for name in self.names])
        return Picked(log, mix["at"], self._row(here))

    def held(self, mix: Mapping[str, Any]) -> HeldOutputs:
        """What a state tells of outputs that may still be held."""
        places = {str(name): place for place, name in enumerate(self.names)}
        named = sorted(mix["sources"])
        picks = [places[named[pick]] for pick in picks_of(mix["picks"], len(named)) or []]
        sources = [mix["held"].get(name, []) for name in places]
        return HeldOutputs(mix["at"] - len(picks), mix["steps"] - mix["at"], sources, picks)

    def _standing(self, sources: Mapping[str, list[Any]], before: int, start: int, units: float) -> Standing:
        """Where it stands if sources of these names have come so far, and have given so many units, with others."""
        begun = [SourceProgress(*sources.get(str(name), ())) for name in self.names]
        if len(next(iter(sources.values()), ())) != self.form.fields:  # what was expected there was something else
            begun = [one._replace(expected=one.units if self.measured else one.datapoints) for one in begun]
        begun = [one._replace(before=one.datapoints) for one in begun]
        return Standing(start, before, begun, whole(max(units - sum(one.units for one in begun), 0)))

    def _row(self, standing: Standing) -> MixRow:
        return self.form.packed(standing.start, standing.before, zip(*standing.sources), spent=standing.spent)

    def epoch_upstream(self, epoch: EpochForm) -> EpochForm:
        """In a round of it, where sources begin again."""
        return (*epoch, None) if self.in_rounds else epoch

    def misfit(self, run: Run, anchor: Anchor) -> str:
        """Where it stands, and where it began if it went on from another mix."""
        outputs = anchor.outputs
        fits = not (outputs and (self.seekable or not anchor.inputs))
        if self.seekable and len(anchor.inputs) >= self.form.size:  # it stands where it began, or makes picks again
            outputs = self.form.unpacked(anchor.inputs).start
        fits = fits and (not anchor.inputs or self.form.fits(anchor.inputs, outputs))
        if fits and anchor.inputs:
            begun, first = (self.form.unpacked(row).sources for row in (anchor.inputs, self.form.first(anchor, run)))
            ends = [known_length(run, source) for source in self.sources]
            fits = all(one.position <= max(end, past.position) for end, one, past in zip(ends, begun, first))
        return (
            ""
            if fits
            else "[epoch, outputs, [start of the phase, steps before, and what each source has given]], which add up"
        )

    def progress(self, run: Run, k: int, size: int = 1) -> MixProgress | None:
        """How far it has come after k outputs, if that is known.

        At the end of a pass there may be up to `size` - 1 outputs less than k: the last batch is short.
        """
        if self.seekable:
            return self.reached(run, k, k)
        anchor = run.anchors.get(self.place, Anchor(run.epoch, 0, ()))
        known = k - size < anchor.outputs <= k and anchor.epoch == run.epoch
        return self._progress(run, anchor.outputs, anchor.inputs) if known else None

    def reached(self, run: Run, start: int, k: int, size: int = 1) -> MixProgress | None:
        """How far it has come after k outputs, and what was picked since output `start`,
        before which a stage behind it begins again; if that is known."""
        if self.seekable:
            route = self.route(run)
            k, start = (int(min(number, route.length)) for number in (k, start))
            picks = route.take(range(start, k))[0].tolist() if k - start <= MOST_PICKS else None
            before = self.form.unpacked(self.first(run)).before
            return MixProgress(before + k, route.begun(k), None, k, k >= route.length, route.begun(start), picks)
        anchor = run.anchors.get(self.place) or self.beginning(run)._replace(read=Picked(PickLog(0), 0, ()))
        if anchor.epoch != run.epoch or not isinstance(anchor.read, Picked) or anchor.read.outputs <= k - size:
            return None
        now = anchor.read
        made = self._progress(run, now.outputs, now.row)._replace(over=now.over)
        if anchor.outputs > start:  # of no use there: it is read from the beginning
            anchor = self.beginning(run)
        held = self.form.unpacked(anchor.inputs).sources
        return made._replace(held=held, picks=now.picks(anchor.outputs))

    def _progress(self, run: Run, outputs: int, row: MixRow) -> MixProgress:
        here = self.form.unpacked(row)
        units = whole(here.spent + sum(one.units for one in here.sources)) if self.measured else None
        return MixProgress(here.before + outputs, self.due(run, here), units, outputs)

    def due(self, run: Run, here: Standing) -> list[SourceProgress]:
        """How far each source has come, with what it should have given."""
        begun, lengths, plan = here.sources, self.lengths(run), self.plan(run)
        active = [] if self.scheduled else plan.active(begun, lengths)
        if not active:
            return begun
        origin = self.form.unpacked(self.first(run)).sources
        return owed(origin, begun, active, plan.integers(lengths), "units" if self.measured else "datapoints")


_ASKED = {"until": rules.one_of("first", "all", "cycle_all", "forever"), "random": rules.boolean}


@stage.order(reads=MixNode, draws="random", where=_ASKED)
@renamed("mix")
def mixed(
    *sources: Any, names: Any, weights: Any, until: str, random: bool, rng: np.random.Generator | None
) -> MixPlan:
    """What a mix of sources is asked for; `flowfn.mix` is for users."""
    return MixPlan(names, weights, until, None if rng is None else drawn_key(rng))


@stage.order(reads=MixNode, draws="random", where=_ASKED)
@renamed("mix")
def mixed_so(
    *sources: Any,
    names: Any,
    weights: Any,
    until: str,
    random: bool,
    temperature: float,
    epochs: Any,
    measured: bool,
    rng: np.random.Generator | None,
) -> MixPlan:
    """The same where more is asked for: sources that are measured, or read so often, or weights with a temperature."""
    return MixPlan(names, weights, until, None if rng is None else drawn_key(rng), temperature, epochs, measured)
