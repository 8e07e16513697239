"""GPU kernels for what the library would read and write many times over.

Written in Triton, which comes with every CUDA build of PyTorch for Linux. Nothing here is needed for a result, only
for its speed: `engine.diffusion.fused` decides where they run. The convolutions stay with cuDNN: one of our own
that also did the norm and the sum that follow was no faster on an H200 (193 against 243 TFLOP/s at 32 channels).
"""
