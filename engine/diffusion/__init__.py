"""The diffusion engine: noise schedule, network, preconditioning, samplers and the enhancer."""
