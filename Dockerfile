# hypercrl on Debian with Python 3.11, for which PyBullet has wheels. Nothing but Debian's packages, PyPI
# and, where it answers, PyTorch's index of CPU builds is needed.
#
#   docker build -t hypercrl .                                  # without CUDA
#   docker build -t hypercrl:cuda --build-arg DEVICE=cuda .     # 3 GB more
#   docker run --rm -u "$(id -u)" -v "$PWD/runs:/work/runs" hypercrl train preset=smoke run_dir=runs/smoke
#   docker run --rm --gpus all -u "$(id -u)" -v "$PWD/runs:/work/runs" hypercrl:cuda train run_dir=runs/mine

ARG BASE=debian:bookworm-slim
FROM ${BASE}

ARG DEVICE=cpu
ARG TORCH=torch==2.13.0

# EGL and OpenGL draw the videos. With CUDA, Triton compiles the launchers of its kernels with gcc.
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends \
        ca-certificates python3 python3-venv libegl1 libopengl0 libgl1-mesa-dri libegl-mesa0 \
        $(test "$DEVICE" = cpu || echo gcc libc6-dev python3-dev) \
 && rm -rf /var/lib/apt/lists/* \
 && python3 -m venv /opt/hypercrl

# HOME: somewhere to write for any user, as of `docker run -u`.
ENV PATH=/opt/hypercrl/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 HOME=/tmp

COPY scripts/torch_index.py /opt/
RUN pip install --quiet $(python /opt/torch_index.py "$DEVICE") "$TORCH"

COPY pyproject.toml README.md LICENSE /opt/source/
COPY configs /opt/source/configs
COPY envs /opt/source/envs
COPY kernels /opt/source/kernels
COPY hypercrl /opt/source/hypercrl
RUN pip install --quiet "/opt/source[bullet]" && rm -rf /opt/source && hypercrl --version

WORKDIR /work
ENTRYPOINT ["hypercrl"]
CMD ["--help"]
