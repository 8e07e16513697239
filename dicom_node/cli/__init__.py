"""The command line: parses, prints, sets exit codes. Exit 0 done, 1 the answer is no, 2 wrong use or input."""
