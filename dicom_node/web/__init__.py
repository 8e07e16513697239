"""The operator's page: rendered from the desk's own verbs, steered through the API; nothing comes from elsewhere."""
