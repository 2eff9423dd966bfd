# One image for each service: docker build --target inner . (researcher, trainer, inner, outer, dashboard, client)
# The dependencies of a target are a layer of their own, which a change of the code does not touch.
FROM python:3.11-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
    BILEVEL_HOME=/data BILEVEL_CACHE=/data/cache BILEVEL_LOG_FORMAT=json
# Volumes begin as copies of these folders, owner included.
RUN useradd --uid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin bilevel \
 && install -d -o bilevel -g bilevel /data /data/cache /results /certs
WORKDIR /requirements
COPY pyproject.toml constraints.txt docker/requirements.py ./

FROM base AS wheel
RUN pip install --quiet "hatchling>=1.27"
WORKDIR /source
COPY . .
RUN pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheel .

FROM base AS client
RUN python requirements.py report > needed && pip install --quiet --constraint constraints.txt --requirement needed
COPY --from=wheel /wheel /wheel
RUN pip install --quiet --no-deps /wheel/*.whl
WORKDIR /results
USER bilevel
ENTRYPOINT ["bilevel"]

FROM base AS researcher
RUN python requirements.py researcher > needed && pip install --quiet --constraint constraints.txt --requirement needed
COPY --from=wheel /wheel /wheel
RUN pip install --quiet --no-deps /wheel/*.whl
WORKDIR /data
USER bilevel
ENTRYPOINT ["python", "-m", "clients.scripted_researcher"]
CMD ["--listen", "0.0.0.0:7400", "--insecure"]

FROM base AS inner
RUN python requirements.py inner postgres metrics telemetry > needed && pip install --quiet --constraint constraints.txt --requirement needed
COPY --from=wheel /wheel /wheel
RUN pip install --quiet --no-deps /wheel/*.whl
WORKDIR /data
USER bilevel
ENTRYPOINT ["python", "-m", "inner_service"]
CMD ["--listen", "0.0.0.0:7402", "--insecure"]

FROM inner AS outer
ENTRYPOINT ["python", "-m", "outer_service"]
CMD ["--listen", "0.0.0.0:7403", "--inner", "inner:7402", "--insecure"]

FROM base AS dashboard
RUN python requirements.py dashboard > needed && pip install --quiet --constraint constraints.txt --requirement needed
COPY --from=wheel /wheel /wheel
RUN pip install --quiet --no-deps /wheel/*.whl
ENV NICEGUI_STORAGE_PATH=/tmp/nicegui
WORKDIR /tmp
USER bilevel
ENTRYPOINT ["bilevel", "dashboard"]
CMD ["--host", "0.0.0.0", "--inner", "inner:7402", "--outer", "outer:7403", "--insecure"]

FROM base AS trainer
# Set to the empty string for a build with CUDA.
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
RUN pip install --quiet ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} "$(grep '^torch==' constraints.txt)"
RUN python requirements.py trainer metrics telemetry > needed && pip install --quiet --constraint constraints.txt --requirement needed
COPY --from=wheel /wheel /wheel
RUN pip install --quiet --no-deps /wheel/*.whl
WORKDIR /data
USER bilevel
ENTRYPOINT ["python", "-m", "gpt_trainer"]
CMD ["serve", "--listen", "0.0.0.0:7401", "--insecure"]
