"""What Keras does with flows, on the backend that KERAS_BACKEND names: each argument is a function here, whose result is
printed as JSON. Backends cannot be changed within a process."""

import contextlib
import json
import os
import signal
import sys
import warnings

import keras
import numpy as np

import flowfn as ff
from flowfn.interop import as_pydataset


class Order(keras.callbacks.Callback):
    """Which numbers a model was trained on, epoch by epoch: the loss is the number, and Keras tells the mean so far."""

    def on_train_begin(self, logs=None):
        self.seen = []

    def on_epoch_begin(self, epoch, logs=None):
        self.sum, self.count = 0.0, 0
        self.seen.append([])

    def on_train_batch_end(self, batch, logs=None):
        self.count += 1
        now = float(logs["loss"]) * self.count
        self.seen[-1].append(round(now - self.sum))
        self.sum = now


def numbers(n=5, *stages):
    return ff.pipe(range(n), ff.shuffle(), *stages, ff.map(as_example), ff.batch(1))


def as_example(number):
    return [np.array([number], "f4"), np.float32(0)]


def teller():
    """A model whose loss is its input, and which learns nothing."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")])
    model.compile(keras.optimizers.SGD(0.0), lambda truth, guess: guess)
    return model


def fitted(data, model=None, **options):
    """The numbers of each epoch that a model was trained on."""
    order = Order()
    options["callbacks"] = [order, *options.get("callbacks", ())]
    (model or teller()).fit(data, verbose=0, **options)
    return order.seen


def expected(flow, *epochs):
    return [[int(x[0, 0]) for x, _ in flow.run(epoch=epoch)] for epoch in epochs]


def compared(seen, right):
    return {"seen": seen, "right": right}


def epochs_follow():
    batches, model = as_pydataset(numbers()), teller()
    seen = fitted(batches, model, epochs=2) + fitted(batches, model, epochs=4, initial_epoch=2)
    return compared(seen, expected(numbers(), 0, 1, 2, 3))


def shuffle_of_fit():
    seen = [fitted(as_pydataset(numbers()), epochs=2, shuffle=shuffle) for shuffle in (True, False)]
    return compared(seen, [expected(numbers(), 0, 1)] * 2)


def other_data_sets():
    batches, model = as_pydataset(numbers()), teller()
    validation = as_pydataset(numbers(4))
    seen = fitted(batches, model, epochs=1, validation_data=validation)
    model.predict(batches, verbose=0)
    model.predict(batches, verbose=0, steps=2)
    model.evaluate(validation, verbose=0)
    model.evaluate(validation, verbose=0, steps=2)
    seen += fitted(batches, model, epochs=2, validation_data=validation, validation_steps=2)
    return compared(seen, expected(numbers(), 0, 1, 2))


def evaluating_on_it():
    batches, model = as_pydataset(numbers()), teller()
    model.evaluate(batches, verbose=0)
    return compared(fitted(batches, model), expected(numbers(), 1))


def parts_of_a_pass():
    """3 of 5 batches, the 2 others, 3 of the next pass: so Keras treats each data set that ends."""
    warnings.simplefilter("ignore")
    seen = fitted(as_pydataset(numbers()), epochs=3, steps_per_epoch=3)
    first, second = expected(numbers(), 0, 1)
    return compared(seen, [first[:3], first[3:], second[:3]])


def whole_passes_by_steps():
    return compared(fitted(as_pydataset(numbers()), epochs=3, steps_per_epoch=5), expected(numbers(), 0, 1, 2))


def of_unknown_length():
    warnings.simplefilter("ignore")
    odd = numbers(9, ff.filter(is_odd))
    seen = fitted(as_pydataset(odd), epochs=3, steps_per_epoch=3)
    flat = [number for one in expected(odd, 0, 1, 2) for number in one]
    return compared(seen, [flat[:3], flat[3:6], flat[6:9]])


def is_odd(number):
    return number % 2 == 1


def one_batch():
    flow = ff.pipe(range(1), ff.map(drawn, rng=True), ff.map(as_example), ff.batch(1))
    return compared(fitted(as_pydataset(flow), epochs=4), expected(flow, 0, 1, 2, 3))


def drawn(number, rng):
    return int(rng.integers(1000))


def stopped():
    """A pass that was broken off is followed by the next epoch."""
    batches, model = as_pydataset(numbers()), teller()

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 1

    seen = fitted(batches, model, epochs=3, callbacks=[Stop()]) + fitted(batches, model, epochs=1)
    first, second = expected(numbers(), 0, 1)
    return compared(seen, [first[:2], second])


def epoch_set():
    batches = as_pydataset(numbers())
    batches.set_epoch(7)
    return compared(fitted(batches, epochs=2), expected(numbers(), 7, 8))


def loaded():
    """A state that was loaded into the flow: its epoch goes on where it stood."""
    warnings.simplefilter("ignore")
    iterator = numbers().run(epoch=3)
    next(iterator), next(iterator)
    batches = as_pydataset(numbers().load_state_dict(iterator.state_dict()))
    first, second = expected(numbers(), 3, 4)
    return compared(fitted(batches, epochs=2), [first[2:], second])


def prefetched():
    flow = ff.pipe(numbers(), ff.prefetch(2, threads=2))
    return compared(fitted(as_pydataset(flow), epochs=2), expected(numbers(), 0, 1))


def refused():
    told = {}
    for name, call in {
        "flow": lambda: fitted(numbers()),
        "workers": lambda: setattr(as_pydataset(numbers()), "workers", 3),
        "empty": lambda: as_pydataset(ff.pipe(range(0), ff.batch(2))),
        "gaps": lambda: as_pydataset(numbers().load_state_dict(numbers().state_dict(), skip=[1])),
        "unknown": lambda: as_pydataset(numbers(9, ff.filter(is_odd))).backup_and_restore("x", save_freq=2),
        "frequency": lambda: as_pydataset(numbers()).backup_and_restore("x", save_freq=0),
        "failing": lambda: fitted(as_pydataset(numbers(5, ff.map(failing)))),
        "index": lambda: as_pydataset(numbers())[5],
    }.items():
        try:
            call()
        except Exception as error:
            told[name] = f"{type(error).__name__}: {error} {getattr(error, '__notes__', '')}"
    return told


def failing(number):
    raise LookupError(f"there is no {number}")


def forms():
    """Losses by what batches look like: all of it the same data."""
    x, y = np.arange(12, dtype="f4").reshape(6, 2), np.arange(6, dtype="f4").reshape(6, 1)
    weights = np.array([1, 0, 2, 1, 0, 1], "f4")

    def loss(form, **options):
        keras.utils.set_random_seed(0)
        one, other = keras.Input((1,), name="one"), keras.Input((1,), name="other")
        model = keras.Model([one, other], keras.layers.Dense(1)(keras.layers.concatenate([one, other])))
        model.compile("sgd", "mse", weighted_metrics=[])
        flow = ff.pipe(ff.from_arrays(x[:, :1], x[:, 1:], y, weights), ff.batch(3), ff.map(form))
        return float(model.fit(as_pydataset(flow), verbose=0, **options).history["loss"][0])

    return {
        "lists": loss(lambda batch: [[batch[0], batch[1]], batch[2]]),
        "tuples": loss(lambda batch: ((batch[0], batch[1]), batch[2])),
        "dicts": loss(lambda batch: ({"one": batch[0], "other": batch[1]}, batch[2])),
        "weights": loss(lambda batch: [[batch[0], batch[1]], batch[2], batch[3]]),
        "class weights": loss(
            lambda batch: [[batch[0], batch[1]], batch[2]],
            class_weight={i: float(weight) for i, weight in enumerate(weights)},
        ),
    }


def augmented():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 6)).astype("f4"), rng.integers(3, size=50)
    return ff.pipe(ff.from_arrays(x, y), ff.shuffle(), ff.map_component(noisy, 0, rng=True), ff.batch(8))


def uncounted():
    """Some 5 batches in each epoch, whose number nobody knows."""
    rows = ff.filter(lambda row: row[0][0] > -0.5)
    return ff.pipe(augmented(), ff.unbatch(), rows, ff.batch(8))


def plain():
    return ff.pipe(ff.from_arrays(np.ones((7, 6), "f4"), np.arange(7) % 3), ff.batch(4))


def noisy(x, rng):
    return x + rng.normal(scale=0.1, size=x.shape).astype("f4")


def learner(dropout=0.5):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, "relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(dropout),
            keras.layers.Dense(3),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    return model


def result(model, history):
    values = [keras.ops.convert_to_numpy(one) for one in (*model.variables, *model.optimizer.variables)]
    return {
        "weights": [np.asarray(one).tobytes().hex() for one in values],
        "history": {name: [float(one).hex() for one in each] for name, each in history.items()},
    }


class Stop(keras.callbacks.Callback):
    """Ends a training behind so many batches: as a machine does that fails, or by an error."""

    def __init__(self, at, kill=False):
        super().__init__()
        self.at, self.kill = at, kill

    def on_train_batch_end(self, batch, logs=None):
        self.at -= 1
        if self.at == 0 and self.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.at == 0:
            raise InterruptedError


def whole():
    model = learner()
    history = model.fit(as_pydataset(augmented()), epochs=3, verbose=0, validation_data=as_pydataset(plain()))
    return result(model, history.history)


UNCOUNTED = {
    "epochs": 4,
    "steps_per_epoch": 3,
    "verbose": 0,
    "shuffle": False,
}  # or Keras warns that it will not shuffle


def whole_uncounted():
    model = learner()
    return result(model, model.fit(as_pydataset(uncounted()), **UNCOUNTED).history)


def by_hand():
    """The same batches in a loop of one's own."""
    fitted, looped = learner(dropout=0), learner(dropout=0)
    fitted.fit(as_pydataset(augmented()), epochs=2, verbose=0)
    for epoch in range(2):
        for x, y in augmented().run(epoch=epoch):
            looped.train_on_batch(x, y)
    return compared(result(fitted, {}), result(looped, {}))


def trained(folder, save_freq, stop=None):
    """Trained with a backup, from what is saved there."""
    batches, model = as_pydataset(augmented()), learner()
    callbacks = [batches.backup_and_restore(folder, save_freq=save_freq), *([stop] if stop else [])]
    history = model.fit(batches, epochs=3, verbose=0, validation_data=as_pydataset(plain()), callbacks=callbacks)
    return result(model, history.history)


def trained_uncounted(folder, stop=None):
    """Its epochs of 3 batches end within passes."""
    batches, model = as_pydataset(uncounted()), learner()
    callbacks = [batches.backup_and_restore(folder), *([stop] if stop else [])]
    return result(model, model.fit(batches, callbacks=callbacks, **UNCOUNTED).history)


def by_its_own_steps():
    """Told how many steps an epoch has: Keras begins the next pass before the epoch ends, and not once more behind that."""
    import tempfile

    def train(folder, stop=None):
        batches, model = as_pydataset(augmented()), learner()
        callbacks = [batches.backup_and_restore(folder), *([stop] if stop else [])]
        options = {"epochs": 3, "steps_per_epoch": len(batches), "verbose": 0}
        return result(model, model.fit(batches, callbacks=callbacks, **options).history)["weights"]

    with tempfile.TemporaryDirectory() as folder:
        right = train(f"{folder}/whole")
        interrupted(f"{folder}/saved", Stop(9), train=train)
        return compared(train(f"{folder}/saved"), right)


def interrupted(*arguments, train=trained):
    with contextlib.suppress(InterruptedError):
        train(*arguments)


def killed():
    """Behind batch 9 of 21, 2 of the second epoch; 8 were saved. What is not counted is left behind batch 8 of 12."""
    interrupted(os.environ["FOLDER"] + "-uncounted", Stop(8), train=trained_uncounted)
    trained(os.environ["FOLDER"], 4, Stop(9, kill=True))


def resumed():
    """What was killed goes on, is interrupted 6 batches later, and goes on; the same, saved at the ends of epochs."""
    warnings.simplefilter("error", UserWarning)
    folder = os.environ["FOLDER"]
    interrupted(folder, 4, Stop(6))
    results = {"batches": trained(folder, 4), "uncounted": trained_uncounted(folder + "-uncounted")}
    interrupted(folder, "epoch", Stop(9))
    return results | {"epochs": trained(folder, "epoch"), "left": os.path.exists(folder)}


def hooks():
    """What Keras calls on a data set, and with which indices, before it trains and while it does."""
    calls = []

    class Told(keras.utils.PyDataset):
        num_batches = 2

        def __getitem__(self, index):
            calls.append(index)
            return np.ones((1, 1), "f4"), np.ones((1, 1), "f4")

        def on_epoch_begin(self):
            calls.append("B")

        def on_epoch_end(self):
            calls.append("E")

        @property
        def workers(self):
            calls.append("A")
            return 1

    model, data, told = teller(), Told(), {}
    for name, call in {
        "first fit": lambda: model.fit(data, epochs=2, verbose=0, shuffle=False),
        "second fit": lambda: model.fit(data, epochs=1, verbose=0, shuffle=False),
        "evaluate": lambda: model.evaluate(data, verbose=0),
        "predict": lambda: model.predict(data, verbose=0),
    }.items():
        calls.clear()
        call()
        told[name] = "".join(map(str, calls))
    return told


def own_backup():
    """What is left of a state of dropout, of batches and of an epoch when Keras's own callback restores it."""
    import tempfile

    order, told = [], {}

    class Told(keras.utils.PyDataset):
        num_batches = 4

        def __getitem__(self, index):
            order.append(index)
            return np.ones((1, 6), "f4"), np.ones(1, "i4")

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1 and self.model.epoch == 1:
                raise InterruptedError

        def on_epoch_begin(self, epoch, logs=None):
            self.model.epoch = epoch
            told.setdefault("epochs", []).append(epoch)

    def state(model):
        (dropout,) = (one for one in model.layers if isinstance(one, keras.layers.Dropout))
        return np.asarray(keras.ops.convert_to_numpy(dropout.seed_generator.state)).tolist()

    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            model = learner()
            backup = keras.callbacks.BackupAndRestore(folder, save_freq=1)
            read = keras.callbacks.LambdaCallback(
                on_train_begin=lambda logs: told.setdefault("states", []).append(state(model))
            )
            try:
                model.fit(Told(), epochs=2, verbose=0, shuffle=False, callbacks=[backup, read, Stop()])
            except InterruptedError:
                told.setdefault("states", []).append(state(model))
            with open(f"{folder}/training_metadata.json") as file:
                told.setdefault("saved", []).append(json.load(file))
    return told


if __name__ == "__main__":
    print(json.dumps({name: globals()[name]() for name in sys.argv[1:]}))
