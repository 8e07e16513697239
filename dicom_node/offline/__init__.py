"""Enhancement of files at hand, without a node: NIfTI volumes and DICOM series in, the same kind out.

A request is checked, its inputs are found and judged by their headers, each one goes along the line the
pipeline runs, and everything appears under its own name at the end, or nothing does.
"""
