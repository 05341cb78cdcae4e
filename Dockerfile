# One image with all services; docker-compose.yml says which one a container runs.

FROM rust:1.95-bookworm AS rust
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY events events
COPY reflex reflex
COPY arms/executor arms/executor
RUN cargo build --locked --release --bins

FROM python:3.11-slim-bookworm
WORKDIR /opt/octollm
COPY requirements.lock pyproject.toml README.md ./
RUN python -m venv .venv && .venv/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY events events
COPY orchestrator orchestrator
COPY arms/planner arms/planner
COPY projections projections
COPY octo octo
RUN .venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation .
COPY --from=rust /src/target/release/octollm-reflex /src/target/release/octollm-executor /usr/local/bin/
RUN printf '#!/bin/sh\nexec python -c "import sys, urllib.request as r; r.urlopen(f\\"http://127.0.0.1:{sys.argv[1]}/ready\\", timeout=2)" "$1"\n' \
        > /usr/local/bin/octo-probe && chmod 755 /usr/local/bin/octo-probe \
    && useradd --uid 10001 --no-create-home octollm && install -d -o octollm /data
ENV PATH=/opt/octollm/.venv/bin:$PATH PYTHONUNBUFFERED=1
USER octollm
