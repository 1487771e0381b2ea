# docker build -t neurostorm .                                  an image for CPUs
# docker build -t neurostorm --build-arg TORCH=cuda .           the same with PyTorch's CUDA build
# docker build -t neurostorm --build-arg WEIGHTS=base .         with the pretrained weights in it
#
# TORCH_INDEX: address of a package index with PyTorch's CPU builds, where the ordinary index has CUDA builds only
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG TORCH=cpu
ARG TORCH_INDEX=""
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --no-install-recommends -y gcc libc6-dev binutils \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY .ci/constraints.txt .ci/
RUN python -m venv /opt/venv \
    && version=$(sed -n 's/^torch==\([^;]*\).*/\1/p' .ci/constraints.txt) \
    && /opt/venv/bin/pip install --no-cache-dir --no-deps ${TORCH_INDEX:+--index-url "${TORCH_INDEX}"} "torch==${version}" \
    && got=$(sed -n "/^cuda/{s/.*= *//p;q}" /opt/venv/lib/python3*/site-packages/torch/version.py) \
    && case "${TORCH}:${got}" in \
        cpu:None | cuda:[!N]*) ;; \
        *) echo "TORCH=${TORCH} was asked for, but the package index gave PyTorch for CUDA '${got}'." \
                "For CPUs give TORCH_INDEX, the address of PyTorch's index of CPU builds." >&2; exit 1 ;; \
    esac
COPY setup.cfg setup.py pyproject.toml README.md ./
COPY boilerplate boilerplate
COPY neurostorm_bids neurostorm_bids
# What only developers of the libraries need goes. Only PyTorch's own libraries can be stripped: those that wheels bring
# along are damaged by it.
RUN /opt/venv/bin/pip install --no-cache-dir --constraint .ci/constraints.txt ".[register]" \
    && libraries=$(/opt/venv/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))") \
    && rm -rf "${libraries}"/torch/include "${libraries}"/torch/test \
              "${libraries}"/pip "${libraries}"/pip-* "${libraries}"/setuptools "${libraries}"/setuptools-* \
    && find "${libraries}/torch/bin" -type f ! -name torch_shm_manager -delete \
    && find "${libraries}" -type d -name tests -prune -exec rm -rf {} + \
    && find "${libraries}" -type f -regex ".*\.\(pyi\|pxd\|pyx\|h\|hpp\|c\|a\|cmake\)" -delete \
    && strip --strip-unneeded "${libraries}"/torch/lib/libtorch_*.so \
    && /opt/venv/bin/python -c "import torch, SimpleITK; torch.ones(2, 2) @ torch.ones(2, 2)"

FROM ${BASE} AS runtime
ARG TORCH=cpu
ARG WEIGHTS=""
ARG TEMPLATES=yes
LABEL org.opencontainers.image.title="neurostorm_bids" \
      org.opencontainers.image.description="BIDS App: NeuroSTORM embeddings and predictions for what fMRIPrep wrote" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.documentation="README.md" \
      neurostorm.torch="${TORCH}"
COPY --from=build /opt/venv /opt/venv
# Fixed places, which a bind mount may replace: what lies under HOME disappears where HOME is bound anew.
ENV PATH=/opt/venv/bin:$PATH \
    TEMPLATEFLOW_HOME=/opt/templateflow \
    TEMPLATEFLOW_AUTOUPDATE=off \
    NEUROSTORM_HOME=/opt/neurostorm \
    NEUROSTORM_CONTAINER=docker \
    TRITON_CACHE_DIR=/tmp/triton \
    PYTHONDONTWRITEBYTECODE=1
RUN mkdir -p /opt/templateflow /opt/neurostorm \
    && { [ "${TEMPLATES}" != yes ] || neurostorm-model templates \
         || echo "WARNING: the templates are NOT in this image (no network?): bind a folder to /opt/templateflow" >&2; } \
    && for name in ${WEIGHTS}; do neurostorm-model fetch "${name}" \
         || echo "WARNING: the weights '${name}' are NOT in this image (no network?): bind a folder to /opt/neurostorm" >&2; done \
    && chmod -R a+rX /opt/templateflow /opt/neurostorm
WORKDIR /tmp
ENTRYPOINT ["neurostorm"]
