"""The NeuroSTORM network: its layers, its scans for CPUs and GPUs, its weights and what they predict."""
