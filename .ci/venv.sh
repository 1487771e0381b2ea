#!/bin/bash
# What the Dockerfile and the Singularity.def share: venv.sh torch | app | bake, in a folder with the project's files.
#   TORCH        cpu or cuda
#   TORCH_INDEX  address of a package index with PyTorch's CPU builds, where the ordinary index has CUDA builds only
#   TEMPLATES    yes: put TemplateFlow's files into /opt/templateflow
#   WEIGHTS      names of models to put into /opt/neurostorm
set -euo pipefail

# PyTorch first, alone and checked: the wrong build drags in gigabytes.
torch() {
    python -m venv /opt/venv
    version=$(sed -n 's/^torch==\([^;]*\).*/\1/p' .ci/constraints.txt)
    /opt/venv/bin/pip install --no-cache-dir --no-deps ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "torch==$version"
    got=$(sed -n '/^cuda/{s/.*= *//p;q}' /opt/venv/lib/python3*/site-packages/torch/version.py)
    case "${TORCH:-cpu}:$got" in
    cpu:None | cuda:[!N]*) ;;
    *)
        echo "TORCH=${TORCH:-cpu} was asked for, but the package index gave PyTorch for CUDA '$got'." \
            "For CPUs give TORCH_INDEX, the address of PyTorch's index of CPU builds." >&2
        exit 1
        ;;
    esac
}

# What only developers of the libraries need goes. Only PyTorch's own libraries can be stripped: those that wheels bring
# along are damaged by it.
app() {
    /opt/venv/bin/pip install --no-cache-dir --constraint .ci/constraints.txt ".[register]"
    libraries=$(/opt/venv/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")
    # without hf_xet the hub is read by plain HTTP; aiohttp is for checkpoints on web servers, which Lightning is not asked for
    rm -rf "$libraries"/torch/{include,test} "$libraries"/{pip,setuptools}{,-*} "$libraries"/{hf_xet,aiohttp}{,-*}
    rm -rf "$libraries"/torch/_inductor/{codegen,fx_passes,kernel} # of torch.compile, which is not used
    find "$libraries/torch/bin" -type f ! -name torch_shm_manager -delete
    find "$libraries" -type d -name tests -prune -exec rm -rf {} +
    find "$libraries" -type f -regex '.*\.\(pyi\|pxd\|pyx\|h\|hpp\|c\|a\|cmake\)' -delete
    strip --strip-unneeded "$libraries"/torch/lib/libtorch_*.so
    # what is left, for the image's bill of materials
    /opt/venv/bin/python -c "from importlib.metadata import distributions
print(*sorted({f'{each.name}=={each.version}' for each in distributions()}, key=str.lower), sep='\\n')" >/opt/venv/packages.txt
    cd / # what is installed is looked at, not the source
    /opt/venv/bin/python -c "import neurostorm_bids.train.trainer, torch, SimpleITK; torch.ones(2, 2) @ torch.ones(2, 2)
from neurostorm_bids.model.scan import kernels
assert kernels.library(), 'the compiled kernels are missing'"
}

bake() {
    mkdir -p /opt/templateflow /opt/neurostorm
    if [ "${TEMPLATES:-yes}" = yes ] && ! neurostorm-model templates; then
        echo "WARNING: the templates are NOT in this image (no network?): bind a folder to /opt/templateflow" >&2
    fi
    for name in ${WEIGHTS:-}; do
        neurostorm-model fetch "$name" ||
            echo "WARNING: the weights '$name' are NOT in this image (no network?): bind a folder to /opt/neurostorm" >&2
    done
    chmod -R a+rX /opt/templateflow /opt/neurostorm
}

"$1"
