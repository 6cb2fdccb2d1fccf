"""Arrays: npy and npz, HDF5, Zarr.

stored_rows     rows of what is read by blocks
numpy_reading, numpy_writing, npy
hdf5_reading, hdf5_writing, hdf5_elsewhere (what lies in other files)
zarr_stores, zarr_chunks
"""
