"""The selective scan of Mamba-1, in plain PyTorch, compiled for CPUs, and as Triton kernels for GPUs."""
