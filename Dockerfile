# Parlor in a container: docs/service.md. For GPUs: --build-arg VARIANT=cuda --build-arg TORCH=cu126, or cu130
#
# The kernels are compiled in a stage of their own, for every CPU of the kind that builds (it is found out at the
# start what the one at hand can do), or for every generation of GPU. What runs has no compiler, and is not root.
ARG PYTHON=3.12
ARG VARIANT=cpu

FROM python:${PYTHON}-slim-bookworm AS base
ENV PYTHONDONTWRITEBYTECODE=1 PATH=/opt/venv/bin:$PATH
WORKDIR /app

FROM base AS packages
ARG TORCH=cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl
COPY requirements-web.txt ./
RUN python -m venv /opt/venv \
    && pip install --no-cache-dir --index-url "${TORCH_INDEX}/${TORCH}" --no-deps \
        "$(grep '^torch==' requirements-web.txt)" \
    && pip install --no-cache-dir -r requirements-web.txt

FROM packages AS kernels-cpu
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
COPY cpu/ cpu/
COPY cuda/ cuda/
COPY model/ model/
RUN python -m model.kernels.build

FROM kernels-cpu AS kernels-cuda
RUN pip install --no-cache-dir "nvidia-cuda-nvcc>=12.8" "nvidia-cuda-cccl>=12.8" \
    && python -m model.kernels.build --cuda all

# hadolint ignore=DL3006
FROM kernels-${VARIANT} AS kernels
RUN rm -rf build/objects* build/lock

FROM base AS run
RUN groupadd --gid 10001 parlor \
    && useradd --uid 10001 --gid parlor --create-home parlor \
    && install -d -o parlor -g parlor /models /sessions
COPY --from=packages /opt/venv /opt/venv
COPY app.py ./
COPY starter/ starter/
COPY webui/ webui/
COPY cpu/ cpu/
COPY cuda/ cuda/
COPY model/ model/
COPY --from=kernels /app/build build/
RUN python -m compileall -q app.py model webui
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
VOLUME ["/models", "/sessions"]
EXPOSE 5000
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:5000/healthz', timeout=8)"]
ENTRYPOINT ["python", "app.py", "--host", "0.0.0.0", "--port", "5000", "--no-browser", "--log", "json", \
            "--models-dir", "/models", "--sessions-dir", "/sessions", "--password", "/run/secrets/parlor-password"]
