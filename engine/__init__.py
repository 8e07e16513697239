"""The engine: numpy in, numpy out. It knows voxels and noise, nothing of DICOM, sockets or tables.

A `Volume` goes in, an `EnhancementResult` comes out, whatever runs behind the `Enhancer` seam.
"""
