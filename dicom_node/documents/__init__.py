"""Documents the node writes about itself, from its code and its configuration: never a second truth."""
