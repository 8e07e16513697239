"""The whole line on one machine, with nothing to configure: scanner, node and archive on loopback."""
