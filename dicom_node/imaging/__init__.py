"""DICOM images in and out: headers, eligibility, assembly, derivation, verification.

A series is read as bytes wherever its meaning allows: values are copied, compared and written as they
were stored, because a value that was decoded and encoded again is a value that may have changed
(over-long decimal strings, unknown character sets, odd names). Only numbers the node computes with and
short code strings are interpreted.

The room knows `config`'s summary type, `engine`'s volume and the errors of the node. It knows nothing of
sockets, queues or tables.
"""
