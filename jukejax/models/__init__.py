"""The models: attention, layers, transformer stack, VQ-VAE and bottleneck, priors.

Read `attention`, `transformer` and `prior` for the priors; `layers`, `vqvae` and `bottleneck` for
the VQ-VAE; `conditioners` for what a prior is conditioned on. Every module is readable alone.
"""
