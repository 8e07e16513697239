"""From a claimed job to a committed manifest, and from a manifest to the destinations.

Two loops over one queue: `enhance` claims ENHANCE jobs and runs each attempt in a process of its own;
`delivery` claims DELIVER jobs, one destination at a time. A destination that is down therefore never
costs a second enhancement, and a slice that kills the decoder kills an attempt and no more.
"""
