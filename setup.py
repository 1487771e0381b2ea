"""The compiled kernels, which setup.cfg has no place for; everything else of the build is there."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "neurostorm_bids.encode._kernels",
            ["neurostorm_bids/encode/kernels.c"],
            extra_compile_args=["-O3", "-ffp-contract=fast", "-Wno-psabi"],
            optional=True,  # without a compiler the package installs all the same and runs encode/scan.py
        )
    ]
)
