"""`dicom-node doctor`: what is wrong with an installation, what it means and how it is put right.

Each module holds one check: a function of plain values that returns findings and changes nothing. The
one exception is `exchange`, which sends a test object when it is asked to.
"""
