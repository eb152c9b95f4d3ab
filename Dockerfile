# mkdir -p runs && docker build -t itrpo . && docker run --rm --user "$(id -u):$(id -g)" -v "$PWD/runs:/work/runs" itrpo
# The demo on a CPU, whose files are yours; any other command: docker run --rm itrpo itrpo --help.
FROM python:3.12-slim
RUN apt-get update && apt-get install -y --no-install-recommends libegl1 libosmesa6 && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/itrpo
COPY pyproject.toml README.md LICENSE requirements.lock ./
RUN pip install --no-cache-dir --require-hashes --only-binary :all: --requirement requirements.lock
COPY itrpo itrpo
RUN pip install --no-cache-dir --no-deps --no-build-isolation .
# Anybody's place: the user that the command names has no home in here.
RUN mkdir -p /work/runs /work/.cache && chmod 1777 /work /work/runs /work/.cache
ENV HOME=/work
USER nobody
WORKDIR /work
CMD ["itrpo", "train", "hopper-demo", "--algorithm", "itrpo", "--scale", "laptop", "--out", "runs/demo"]
