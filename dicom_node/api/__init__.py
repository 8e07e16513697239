"""HTTP in front of the desk: /api/v1 for programs and for the page. It translates; it decides nothing."""
