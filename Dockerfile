# Stagecoach's service. Settings at /etc/stagecoach/settings.yaml, or in the environment.
# `serve` is the API (probe it at /healthz), `work` a worker, `migrate` brings the database up to date.
ARG BASE=docker.io/library/python:3.11-slim
ARG NODE=docker.io/library/node:22-slim
FROM ${NODE} AS portal
WORKDIR /build
COPY deploy/portal deploy/portal
COPY src/stagecoach/portal/static src/stagecoach/portal/static
RUN cd deploy/portal && npm ci --no-audit && npm run --silent vendor

FROM ${BASE} AS build
WORKDIR /build
COPY requirements.lock pyproject.toml README.md LICENSE CHANGELOG.md ./
RUN python3 -m venv /opt/stagecoach && /opt/stagecoach/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY src src
COPY --from=portal /build/src/stagecoach/portal/static/vendor src/stagecoach/portal/static/vendor
COPY migrations migrations
RUN /opt/stagecoach/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM ${BASE}
RUN useradd --system --uid 10001 --home-dir /var/lib/stagecoach --create-home stagecoach
COPY --from=build /opt/stagecoach /opt/stagecoach
ENV PATH=/opt/stagecoach/bin:$PATH STAGECOACH_SETTINGS=/etc/stagecoach/settings.yaml STAGECOACH_SERVER__HOST=0.0.0.0
USER stagecoach
WORKDIR /var/lib/stagecoach
EXPOSE 8080
ENTRYPOINT ["stagecoach"]
CMD ["serve"]
