"""LMDB: datapoints by number (keyvalue), Caffe's databases (caffe), environments,
and which keys there are (listings)."""
