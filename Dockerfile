# docker build -t itrpo . && docker run --rm -v "$PWD/runs:/work/runs" itrpo
# The demo on a CPU; any other command: docker run --rm itrpo itrpo --help. Written, and never built by us.
FROM python:3.12-slim
RUN apt-get update && apt-get install -y --no-install-recommends libegl1 libosmesa6 && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/itrpo
COPY pyproject.toml README.md LICENSE requirements.lock ./
RUN pip install --no-cache-dir --require-hashes --only-binary :all: --requirement requirements.lock
COPY itrpo itrpo
RUN pip install --no-cache-dir --no-deps --no-build-isolation .
RUN useradd --create-home user && mkdir -p /work/runs && chown -R user /work
USER user
WORKDIR /work
CMD ["itrpo", "train", "hopper-demo", "--algorithm", "itrpo", "--scale", "laptop", "--out", "runs/demo"]
