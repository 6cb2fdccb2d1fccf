#!/usr/bin/env bash
# keras 3.15.1 on tensorflow-cpu 2.21.0, Python 3.11: fit on data whose number of batches is not known ends each epoch by asking for one
# batch more. What does that step, which gets no batch, leave behind?
#
# Guess: nothing, since it fails before anything is computed.
# Seen: compiled by XLA nothing; without it (jit_compile=False, and "auto" on a CPU) what does not depend on the batch is done:
# optimizer.iterations counts one step more in each epoch, and dropout draws once more. 3 epochs of 4 batches are 15 iterations of Adam
# (its bias correction, and a schedule of learning rates, go by them), and not 12 as for the same batches in a data set of known length.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check keras==3.15.1 tensorflow-cpu==2.21.0
KERAS_BACKEND=tensorflow CUDA_VISIBLE_DEVICES= TF_CPP_MIN_LOG_LEVEL=3 "$work/venv/bin/python" - <<'PYTHON'
import warnings

import keras
import numpy as np
import tensorflow as tf

warnings.simplefilter("ignore")


def batches():
    for _ in range(4):
        yield np.ones((2, 3), "f4"), np.ones((2, 1), "f4")


def counted(known, jit_compile):
    """Iterations of the optimizer and draws of dropout after 3 epochs of 4 batches."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dropout(0.5, seed=1), keras.layers.Dense(1)])
    model.compile("adam", "mse", jit_compile=jit_compile)
    signature = (tf.TensorSpec((None, 3)), tf.TensorSpec((None, 1)))
    data = tf.data.Dataset.from_generator(batches, output_signature=signature)
    if known:
        data = data.apply(tf.data.experimental.assert_cardinality(4))
    model.fit(data, epochs=3, verbose=0, shuffle=False)
    return int(model.optimizer.iterations), int(model.layers[0].seed_generator.state.numpy()[1])


seen = {(known, jit): counted(known, jit) for known in (True, False) for jit in (True, False, "auto")}
print(f"keras {keras.__version__}, tensorflow {tf.__version__}: by (length known, XLA): {seen}")
more = {key for key, counts in seen.items() if counts == (15, 15)}
raise SystemExit(more != {(False, False), (False, "auto")} or {*seen.values()} != {(12, 12), (15, 15)})
PYTHON
