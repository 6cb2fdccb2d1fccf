"""Small files that tensorpack 0.11 and TensorFlow 2.21 really wrote, compressed, and what is in them.

tensorpack's, once with TENSORPACK_SERIALIZE=msgpack and once with =pickle, its default:

    LMDBSerializer.save(DataFromList(DATAPOINTS, shuffle=False), path)
    TFRecordSerializer.save(DataFromList(DATAPOINTS, shuffle=False), path)

TensorFlow's, with tf.io.TFRecordWriter, without compression, with "GZIP" and with "ZLIB": three serialized
tf.train.Example, of the features that are in EXAMPLES; and three tf.train.SequenceExample of what is in SEQUENCES, "id"
and "name" in their contexts, the others feature lists (a step of "gaps" is a tf.train.Feature() of no kind).
"""

import base64
import json
import zlib
from itertools import pairwise

import numpy as np

DATAPOINTS = [
    [
        np.arange(6, dtype=np.uint8).reshape(1, 2, 3) + i,
        i,
        f"name{i}",
        {"box": np.array([0.5, i], np.float32), "b": b"\x00\xff"},
    ]
    for i in range(3)
]

EXAMPLES = [
    {
        "boxes": np.array([0.5, i, 2, 3], np.float32),
        "image": [bytes(range(6))],
        "label": np.array([i - 1]),
        "name": [f"cat{i}".encode()],
        "none": np.array([], np.int64),
        "words": [b"a", b"bc"],
    }
    for i in range(3)
]

SEQUENCES = [
    {
        "empty": [],
        "frames": [[bytes([i, 0])], [bytes([i, 1])]],
        "gaps": [np.array([1]), np.array([], np.float32), np.array([2, 3])],
        "id": np.array([i]),
        "name": [f"cat{i}".encode()],
        "scores": [np.array([0.5, i, j], np.float32) for j in range(2)],
        "tokens": [np.arange(j + 1) for j in range(i)],
        "words": [[b"a", b"bc"], []],
    }
    for i in range(3)
]


def written(path, name):
    """One of the files, at a path."""
    path.write_bytes(zlib.decompress(base64.b64decode("".join(_FILES[name].split()))))
    return path


_FILES = {
    "tensorpack-msgpack.lmdb": """
        eNrt299KwlAcwPHfzqZ5NaWL6K5X2KTLUN9kTFwU0hJUyOgigh4g7AVCeo0IOs8RvkE33ZuuzT8nQzSDiO8HHOfomR7c1XcwkUwhOb4+vz1ZYlDjV2m8
        ojb7xFyTzZ2l735dn62zjbkSAAAAAACwbdZa/b/6+0apVf1vG72vvlkHAAAAAAB+Lutup6NkT2L3svjuxm5Di861T8JW1LeUrZ1G2Al1XsZjJyePcXgW
        eTeD+vnFrVZx40U7nV4rGhwdH2qneRrPTr5T6amTewvVyc881LWSEX87AAAAAPxz3eRYEO9T+X4hIK+6vhGQ8/U5ac/8jkrqs7xRfdbS+jR24a+ziySB
        81ayC3+TXVxXl+/CW2cX2ytxe67/96WS9n/Fpf8BAAAAADMHacMGQTPqtYOgrwtZzk5H/nRUpv//XP9nz917npJdGRaHxYUr9ktXAAAAAAAAbFMpvctg
        Pl+fzT8AhheObQ==
    """,
    "tensorpack-pickle.lmdb": """
        eNrt20Fr02Acx/HnebJuBXUdCuJB8CLSU2mKR2GF3hbowbsEO1MqUjtrCxYUd5lTyG1/9z68eNIxX4HvQHbwvpcwnyV5zMjmxmgPWr8fyJM8zdOH/FNy
        +KWJUk45aX/sH+5pVWDssmJHNPM9xTGuv3Dmp6fHu3FeoW8UAAAAAACYNX2p/H/xfEeZi/K/V8j75g/jAAAAAADA9Fzu3r9t1E2lrqmKWrYtAAAAAMyd
        w6Qtq3qqsVn6+DPb9Uiq8Y3n4/7GpBauD4ZRzW5Hw6frEl8Ju8NBvzPudqOh7Eh1d9GlKW+htLgkcSn5ml0/GU02IjskNmNfPrzflodSDbxYv5Z2u712
        /Edp0gRqJJ1ABybwtiXWLRnZgYGx8zzuRw15Y4/E6wxeSc+r7pbzg1+1S1N6S7Hp3j85+4OzZjdb0ls+njfWHWkZdSTjqFas35+ufp2cgFnVr9P6/fPq
        31ydaf316epPT8Cs6ldp/fVzf381Xf3eifx/S+1dTfO/XQMAAADAX8XP0lsYPosmL8PQprd7eXprlV2qk9+bfr7ZkNP5j/xP/v+v8r977775zqjr6qBy
        UEn77jn+y19R6fl48TV9kv9fux6cT190dl/kzve7b/M1AGC+fPvMm2cAAGA+rGT3N4rv17v+LyI1nTo=
    """,
    "tensorpack-msgpack.tfrecord": """
        eNorZYCA6zcdK6a0HmHKSzl8hKWksiB1cU2p4RGW7My8lCMMR1iLMxILUiczMjEfYUlJLEk8wsYAZLOwMizNS8xNNWhanJRfgaLZJs0ETfNEJqhWDqBt
        9iArFyYdYWL438JolVlKpiPAbmBjBDvCkBxHNNhDHDEpQe8LuY4Au4GdCewII7JCwgHiCFkegRQAD3uMRQ==
    """,
    "tensorpack-pickle.tfrecord": """
        eNp7zwAB+ZI7dzawTn0C5cZO0egRzivNLajUi0/OL0rVA7JTizKTp/Rwx6cV5ecmlaalpRZNmTxFYxobVAsDIxMzC+uUHlawNiCdUlJZkApU0sNUajil
        s6N9StAUDW/mHsaaKX5+fl7/gQBMeDOUTEnyZvRm8mZun9LD6DylBKjQmwFoTmJuqsGUWqBLmJPyK6ZkMGtM42CAA3sQMSWDvYcpzQTZdBtspjO1Tsng
        A5nbw5g0xZmJ4f+U0lS9SRqHbrynmvfBvmejlvcZId43xOf9BnuKvO+Q7rGUet4H+56dWt5ngnjfCG/sO1Dk/a3JEnYAq9MTQg==
    """,
    "tensorflow.tfrecord": """
        eNprZIAAprNiYVz1XLJcrEn5FanFQiJCQlwCQHF7qLwDEDlwCXOxZuYmpqcKcXFxcLExMDIxs7ByiXOx5iQmpeYI8UnxcHH9hwFGLiEu1vL8opRiIU4u
        di7GRC6mpGQuAS6WvMTcVCGgdi6W5MQSAy4uoEh+XqoQkxTD350lXRVQCxctVTzKVYbVQQ32+B3EB3MQqxQzFyMDUe4wRHZHeZngDCLcAXID8e4gLjyM
        kN0he+laMQC6hU6J
    """,
    "tensorflow-sequence.tfrecord": """
        eNqN0b9LAzEUB/AkvUvrV7HXB4X2Fh2cRV0c038lXk8ppb1yORAR5AZBcOkkuDm6O7s5dnFxdPAP8H8wbWOhDS3NEsjj/fjkvbP5mYz7CgfYheh1KYwr4AwR
        gqEepFSDRJDo4oSeOVoIr7O8a6iOHVTBNcRFAgEGQBZZPx0aYoghL3ObayiaJkMw5m6OY0iTZLmNHSGifezZ9sqNwVZfSoU2gis9MtTAbC5uW8nYlhIVO0GY
        DkbFDbHzu/HPh6vx9v1rli3cs5zSyyZLY2Gpwv2GR+KOxNeSSrVKKtX2pM/D4GniSPda3y6ThEc6o9dNpPaCVP8nzXrajXg04Whi/bY63rY629Mevh6bf2ek
        XQM=
    """,
    "tensorflow-gzip.tfrecord": """
        eNoBxgA5/x+LCAAAAAAAAANrZIAAprNiYVz1XLJcrEn5FanFQiJCQlwCQHF7qLwDEDlwCXOxZuYmpqcKcXFxcLExMDIxs7ByiXOx5iQmpeYI8UnxcHH9
        hwFGLiEu1vL8opRiIU4udi7GRC6mpGQuAS6WvMTcVCGgdi6W5MQSAy4uoEh+XqoQkxTD350lXRVQCxctVTzKVYbVQQ32+B3EB3MQqxQzFyMDUe4wRHZH
        eZngDCLcAXID8e4gLjyMkN0he+laMQAJoiuGoQEAAIL/Tq0=
    """,
    "tensorflow-zlib.tfrecord": """
        eNoBugBF/3ica2SAAKazYmFc9VyyXKxJ+RWpxUIiQkJcAkBxe6i8AxA5cAlzsWbmJqanCnFxcXCxMTAyMbOwcolzseYkJqXmCPFJ8XBx/YcBRi4hLtby
        /KKUYiFOLnYuxkQupqRkLgEulrzE3FQhoHYuluTEEgMuLqBIfl6qEJMUw9+dJV0VUAsXLVU8ylWG1UEN9vgdxAdzEKsUMxcjA1HuMER2R3mZ4Awi3AFy
        A/HuIC48jJDdIXvpWjEAuoVOiYpjTyQ=
    """,
}


def saved_dataset(folder, rows, shards=1, features=None, schema=None, batch=3, **state):
    """A folder as `Dataset.save_to_disk` of datasets 5.2.0 writes it: Arrow streams, and two JSON files beside them."""
    import pyarrow as pa

    table = pa.Table.from_pylist(list(rows), schema)
    folder.mkdir(parents=True)
    names, cuts = [], np.linspace(0, len(table), shards + 1).astype(int)
    for number, (start, stop) in enumerate(pairwise(cuts.tolist())):
        names.append(f"data-{number:05d}-of-{shards:05d}.arrow")
        with pa.ipc.new_stream(str(folder / names[-1]), table.schema) as file:
            file.write_table(table[start:stop], max_chunksize=batch)
    usual = {"_fingerprint": "611416ff5c75a32d", "_format_columns": None, "_format_kwargs": {}, "_format_type": None}
    files = {"_data_files": [{"filename": name} for name in names], "_output_all_columns": False, "_split": None}
    (folder / "state.json").write_text(json.dumps({**usual, **files, **state}))
    info = {"citation": "", "description": "", "features": features or {}, "homepage": "", "license": ""}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder
