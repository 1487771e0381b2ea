# docker build -t neurostorm .                                  an image for CPUs
# docker build -t neurostorm --build-arg TORCH=cuda .           the same with PyTorch's CUDA build
# docker build -t neurostorm --build-arg WEIGHTS=base .         with the pretrained weights in it
# .ci/venv.sh says what the arguments are.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --no-install-recommends -y gcc libc6-dev binutils \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY .ci/constraints.txt .ci/venv.sh .ci/
ARG TORCH=cpu
ARG TORCH_INDEX=""
RUN bash .ci/venv.sh torch
COPY setup.cfg setup.py pyproject.toml README.md LICENSE ./
COPY boilerplate boilerplate
COPY neurostorm_bids neurostorm_bids
RUN bash .ci/venv.sh app

FROM ${BASE} AS runtime
ARG BASE
LABEL org.opencontainers.image.title="neurostorm_bids" \
      org.opencontainers.image.description="BIDS App: NeuroSTORM embeddings and predictions for what fMRIPrep wrote" \
      org.opencontainers.image.version="0.4.0" \
      org.opencontainers.image.authors="The neurostorm_bids developers" \
      org.opencontainers.image.base.name="${BASE}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/venv /opt/venv
# Fixed places, which a bind mount may replace: what lies under HOME disappears where HOME is bound anew.
ENV PATH=/opt/venv/bin:$PATH \
    TEMPLATEFLOW_HOME=/opt/templateflow \
    TEMPLATEFLOW_AUTOUPDATE=off \
    NEUROSTORM_HOME=/opt/neurostorm \
    NEUROSTORM_CONTAINER=docker \
    TRITON_CACHE_DIR=/tmp/triton \
    PYTHONDONTWRITEBYTECODE=1
ARG TEMPLATES=yes
ARG WEIGHTS=""
COPY .ci/venv.sh /tmp/
RUN bash /tmp/venv.sh bake
WORKDIR /tmp
ENTRYPOINT ["neurostorm"]
