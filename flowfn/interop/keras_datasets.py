"""A flow as what Keras trains on, and the callback that resumes it; imported where it is asked for, since Keras is.

    A  Keras makes an adapter: once for each fit, evaluate and predict, and once for all validations of a fit
    B  an epoch begins     E  an epoch ends, or what was read so far is thrown away

    fit        A (B E)? E? ...   what is read before the first E builds the model, and is thrown away
               A E  B...E  B...E
    predict    A B...E

An epoch of Keras (B...E) need not be a pass: with `steps_per_epoch` it may end within one, which then goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from threading import Lock
from typing import Any, NamedTuple

import keras

from flowfn import rules
from flowfn.flows.flow import Flow
from flowfn.flows.iterating import FlowIterator, Progress
from flowfn.flows.states import pack_state, unpack_state
from flowfn.interop.epochs import loaded_within
from flowfn.interop.forms import with_tuples
from flowfn.interop.keras_backups import FREQUENCY, Backup
from flowfn.kinds.runs import Checkpoint


class Begun(NamedTuple):
    """A pass that was begun: behind how many batches read since `count_from_here`, and where."""

    read: int
    epoch: int
    start: Checkpoint


class FlowBatches(keras.utils.PyDataset):  # type: ignore[misc, unused-ignore]
    """The batches of a flow, one after another, whichever Keras asks for: it may have shuffled their numbers."""

    def __init__(self, flow: Flow[Any]) -> None:
        super().__init__()
        self.flow = flow
        _refuse_gaps(flow._coming)
        self.length = _batch_count(flow)
        if self.length == 0:
            raise ValueError(f"as_pydataset(): {flow!r} gives no batch, so there is nothing to train on")
        self._lock = Lock()  # TensorFlow reads in threads of its own
        self._begun: FlowIterator[Any] | None = None
        self._within = self._new = False
        self._most: int | None = None
        self._next = (flow.epoch, Checkpoint())
        self._seed = flow.seed
        self.count_from_here()
        if state := loaded_within(flow):
            self.go_on_from(state)

    def __getitem__(self, index: int) -> Any:
        """The next batch while Keras reads a pass; else batch `index` of the pass to come."""
        with self._lock:
            return _for_keras(self._peek(index) if self._begun is None and not self._within else self._read())

    def __iter__(self) -> Iterator[Any]:
        """The batches of the pass to come, which is still to come afterwards."""
        batches: FlowIterator[Any]
        with FlowIterator(self.flow, Progress(self._seed, *self._next)) as batches:
            yield from map(_for_keras, batches)

    def __len__(self) -> int:
        return len(self.flow)

    def __repr__(self) -> str:
        return f"as_pydataset({self.flow!r})"

    @property
    def num_batches(self) -> int | None:
        """How many batches an epoch has, or what is left of the one that was resumed; None if that is not known."""
        if self.length is None or not self._within or self._new:
            return self.length
        left = self.length - (self._begun.position if self._begun else self._next[1].position)
        return left if self._most is None else min(left, self._most)

    @property
    def workers(self) -> int:
        """One: Keras reads in order, and `prefetch` in the flow is what works ahead."""
        self._let_go(used=True)  # Keras asks when it makes an adapter, which will begin a pass of its own
        self._before, self._new, self._within = self._next, True, False
        return 1

    @workers.setter
    def workers(self, value: int) -> None:
        raise AttributeError(
            f"as_pydataset(): workers of Keras stays 1, got {value!r}; write prefetch(4, processes={value!r}) or "
            f"prefetch(4, threads={value!r}) at the end of the flow"
        )

    def set_epoch(self, epoch: int) -> None:
        """Let the next pass be of an epoch."""
        self._let_go(used=False)
        self._next = self._before = (rules.natural.check("set_epoch", "epoch", epoch, {}), Checkpoint())

    def on_epoch_begin(self) -> None:
        """Keras calls it before each epoch, and before it reads a batch to build a model."""
        self._within = True

    def on_epoch_end(self) -> None:
        """Keras calls it behind each epoch, and where it begins anew: at the start of fit, and of each evaluation."""
        if self._new:  # what was read built the model, or was predicted on
            self._let_go(used=False)
            self._next = self._before
        elif not self._within:
            self._let_go(used=True)
        self._within = self._new = False
        self._most = None

    def backup_and_restore(self, folder: Any, save_freq: Any = "epoch") -> Any:
        """What `keras.callbacks.BackupAndRestore` is, with this data set: resuming is exact to the last bit.

        Save after each epoch of Keras, or whenever `save_freq` batches more have been trained on; where `folder` holds
        what was saved, `fit` goes on from there, in the middle of an epoch too, with the batches that follow. Saved are
        what Keras saves (weights, optimizer, epoch), what it leaves out (the states of dropout and other random layers,
        metrics) and the state of the flow; all of it at once, so that a process may be killed at any moment. When `fit`
        ends, what was saved is removed, as in Keras. In the epoch that goes on Keras finds fewer batches than usual; it
        would warn of that, and is kept from it.

        Other callbacks (early stopping, learning rates that depend on losses) begin anew, as in Keras, and so does
        data for validation: `freeze()` in its flow if that draws random numbers.

        Raises:
            ValueError: `save_freq` is a number, but the number of batches is not known: save after epochs.
        """
        save_freq = FREQUENCY.check("backup_and_restore", "save_freq", save_freq, {})
        if save_freq != "epoch" and self.length is None:
            raise ValueError(
                "backup_and_restore(): Keras can go on within an epoch only where the number of batches is known, "
                f'which it is not of {self.flow!r}; write save_freq="epoch"'
            )
        return Backup(self, rules.folder.check("backup_and_restore", "folder", folder, {}), save_freq)

    def count_from_here(self) -> None:
        """Count the batches that `state` is asked about from here on."""
        self._reads, self._log = 0, [Begun(0, *self._next)]

    def state(self, trained: int) -> dict[str, Any]:
        """The state of the flow when so many batches have been trained on; Keras may have read more."""
        begun = [one for one in self._log if one.read < trained] or self._log[:1]
        read, epoch, start = begun[-1]
        position = start.position + trained - read
        if position == self.length:
            return pack_state(self.flow, self._seed, epoch + 1, Checkpoint())
        return pack_state(self.flow, self._seed, epoch, start._replace(position=position))

    def go_on_from(self, state: Mapping[str, Any], most: int | None = None) -> None:
        """Let the next pass go on from a state, and Keras read at most so many batches in its next epoch."""
        self._let_go(used=False)
        self._seed, epoch, start = unpack_state(self.flow, state)
        _refuse_gaps(start)
        self._next = self._before = (epoch, start)
        self._most = most
        self.count_from_here()

    def _peek(self, index: int) -> Any:
        epoch, start = self._next
        if index < 0 or (self.length is not None and index >= self.length):
            raise IndexError(f"batch {index} of {self!r}, which has {self.length}")
        start = start._replace(position=index)
        with self.flow._serially(self._seed, epoch, start) as batches:
            for batch in batches:
                return batch
        raise IndexError(f"batch {index} of {self!r}, which ends before")

    def _read(self) -> Any:
        while True:
            if self._begun is None:
                self._log.append(Begun(self._reads, *self._next))
                self._begun = FlowIterator(self.flow, Progress(self._seed, *self._next))
            for batch in self._begun:
                self._reads += 1
                if self._begun.position == self.length:
                    self._let_go(used=True)
                return batch
            if self._begun.position == 0:
                raise ValueError(f"as_pydataset(): {self.flow!r} gave no batch in epoch {self._begun.epoch}")
            self._let_go(used=True)

    def _let_go(self, *, used: bool) -> None:
        """End the pass that was begun, if there is one; if it is `used`, the next is of the epoch behind it."""
        if self._begun is not None:
            self._begun.close()
            if used:
                self._next = (self._begun.epoch + 1, Checkpoint())
            self._begun = None


def _refuse_gaps(start: Checkpoint) -> None:
    """Raise if a pass leaves anything out: Keras counts batches, and takes each number for one."""
    if start.skip:
        raise ValueError(
            "as_pydataset(): the flow leaves out some of its data (skip=), but Keras goes by numbers of batches; leave "
            "it out in a loop over the flow, or in as_tf_dataset()"
        )


def _batch_count(flow: Flow[Any]) -> int | None:
    try:
        return len(flow)
    except TypeError:
        return None


def _for_keras(batch: Any) -> Any:
    made = with_tuples(batch)
    return made if isinstance(made, (tuple, dict)) else (made,)
