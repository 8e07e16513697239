"""From an encoded instance to a closed series: admission, durable receipt, completion.

`receiver` answers success only when the instance is on disk and in the database; `stability` decides
when a series is complete and what becomes of it. Pixels are never decoded here.
"""
