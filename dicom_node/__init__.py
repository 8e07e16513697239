"""The node: thin rooms that compose `config`, `engine` and `storage` into one straight line.

association -> instance -> spooled -> series -> volume -> enhanced -> guarded -> derived -> delivered
"""

__version__ = "0.1.0"
