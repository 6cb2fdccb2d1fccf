"""scikit-learn's estimators that learn by batches, fed by a flow, and stopped and resumed together with it."""

import json
import pickle

import numpy as np
import pytest

import flowfn as ff
from flowfn.interop import from_table

pytest.importorskip("sklearn")
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import IncrementalPCA
from sklearn.linear_model import SGDClassifier, SGDRegressor
from sklearn.naive_bayes import GaussianNB
from sklearn.preprocessing import StandardScaler

CLASSES = [0, 1]


def arrays():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 6))
    return x, (x[:, 0] + x[:, 1] > 0).astype(np.int64)


def batches():
    """Shuffled batches, each with noise of its own, anew in every epoch."""
    return ff.pipe(
        ff.from_arrays(*arrays()), ff.shuffle(), ff.map(noisy, rng=True), ff.batch(20), ff.cycle(), ff.take(35)
    )


def noisy(row, rng):
    return [row[0] + 0.1 * rng.normal(size=6), row[1]]


def learned(model):
    """All that a model has learned."""
    return {name: value for name, value in vars(model).items() if name.endswith("_") and isinstance(value, np.ndarray)}


def same(one, other):
    return learned(one).keys() == learned(other).keys() and all(
        value.dtype == learned(other)[name].dtype and value.tobytes() == learned(other)[name].tobytes()
        for name, value in learned(one).items()
    )


def fit(model, iterator, step=lambda: None):
    """The loop of the page: whoever wants to stop raises."""
    supervised = isinstance(model, (SGDClassifier, GaussianNB))
    for x, y in iterator:
        if supervised:
            model.partial_fit(x, y, classes=CLASSES)
        elif isinstance(model, SGDRegressor):
            model.partial_fit(x, y)
        else:
            model.partial_fit(x)
        step()
    return model


MODELS = {
    "SGDClassifier": lambda: SGDClassifier(random_state=0),
    "averaged": lambda: SGDClassifier(average=True, random_state=0),
    "SGDRegressor": lambda: SGDRegressor(random_state=0),
    "GaussianNB": GaussianNB,
    "StandardScaler": StandardScaler,
    "IncrementalPCA": lambda: IncrementalPCA(3),
    "MiniBatchKMeans": lambda: MiniBatchKMeans(3, random_state=0, n_init=1),
}


class Stopped(Exception):
    pass


@pytest.mark.parametrize("name", MODELS)
def test_a_fit_that_is_stopped_goes_on_to_the_same_bits(name):
    """A pickled estimator has all that `partial_fit` goes on from, the generator of MiniBatchKMeans too if its
    `random_state` is a number (scikit-learn 1.9.1)."""
    whole = fit(MODELS[name](), iter(batches()))
    assert learned(whole)
    model, iterator, steps = MODELS[name](), iter(batches()), []

    def step():
        steps.append(1)
        if len(steps) == 17:
            raise Stopped

    with pytest.raises(Stopped):
        fit(model, iterator, step)
    saved = pickle.dumps(model), json.dumps(iterator.state_dict())
    model, iterator = pickle.loads(saved[0]), iter(batches())
    iterator.load_state_dict(json.loads(saved[1]))
    assert same(fit(model, iterator), whole)


def test_partial_fit_forgets_the_generator_of_a_linear_model():
    """`SGDClassifier.partial_fit` shuffles each batch anew by `random_state`, and with a number it begins it again in
    every call: the same batch is always in the same order, whichever call it is (scikit-learn 1.9.1). With a RandomState
    the generator is part of the pickled estimator, so both resume to the same bits."""
    x, y = arrays()
    seen = []
    for _ in range(2):
        model = SGDClassifier(random_state=np.random.RandomState(0))
        for call in range(6):
            model.partial_fit(x, y, classes=CLASSES)
            if call == 2:
                model = pickle.loads(pickle.dumps(model))
        seen.append(model)
    once = SGDClassifier(random_state=np.random.RandomState(0))
    for _ in range(6):
        once.partial_fit(x, y, classes=CLASSES)
    assert same(*seen)
    assert same(seen[0], once)
    numbered, renewed = SGDClassifier(random_state=0), SGDClassifier()
    for _ in range(6):
        numbered.partial_fit(x, y, classes=CLASSES)
        renewed.set_params(random_state=np.random.RandomState(0)).partial_fit(x, y, classes=CLASSES)
    assert same(numbered, renewed)
    assert not same(numbered, once)


@pytest.mark.timeout(120)
def test_workers_make_no_difference_to_what_is_learned():
    alone = fit(MODELS["SGDClassifier"](), iter(batches()))
    assert same(fit(MODELS["SGDClassifier"](), iter(ff.pipe(batches(), ff.prefetch(4, processes=2)))), alone)


def test_rows_of_a_table_are_learned_from_in_batches():
    pd = pytest.importorskip("pandas")
    x, y = arrays()
    frame = pd.DataFrame(x, columns=list("abcdef")).assign(y=y)
    flow = ff.pipe(from_table(frame), ff.shuffle(), ff.batch(20))
    model = SGDClassifier(random_state=0)
    for epoch in range(5):
        for batch in flow.run(epoch=epoch):
            model.partial_fit(np.stack([batch[name] for name in "abcdef"], 1), batch["y"], classes=CLASSES)
    assert model.score(x, y) > 0.9
