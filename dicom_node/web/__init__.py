"""The page: templates and static files inside the package, rendered over the desk; no build step, no outside host."""
