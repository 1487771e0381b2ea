"""The compiled code and the place of boilerplate/, beyond what setup.cfg can say; the rest of the build is there."""

from setuptools import Extension, find_packages, setup

setup(
    # the texts that go into users' papers stand at the top level, where a scientist finds them
    packages=[*find_packages(include=["neurostorm_bids*"]), "neurostorm_bids.boilerplate"],
    package_dir={"neurostorm_bids.boilerplate": "boilerplate"},
    ext_modules=[
        Extension(
            "neurostorm_bids.resample._gather",
            ["neurostorm_bids/resample/gather.c"],
            extra_compile_args=["-O3", "-ffp-contract=fast"],
            optional=True,  # without a compiler, scipy does the same more slowly
        ),
        Extension(
            "neurostorm_bids.model.scan._kernels",
            ["neurostorm_bids/model/scan/kernels.c"],
            extra_compile_args=["-O3", "-ffp-contract=fast", "-Wno-psabi"],
            optional=True,  # without a compiler the package installs all the same and takes the slower road of model/scan/reference.py
        ),
    ],
)
