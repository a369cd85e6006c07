# Build: docker build -t edgedeploy .    Run: docker run --rm -v "$PWD:/models" edgedeploy --target host model.pt
FROM python:3.12-slim AS build
WORKDIR /source
COPY . .
RUN python -m venv /opt/edgedeploy \
    && /opt/edgedeploy/bin/pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu torch==2.13.0 \
    && /opt/edgedeploy/bin/pip install --no-cache-dir torch==2.13.0 .

FROM python:3.12-slim
RUN useradd --create-home --uid 1000 deploy
COPY --from=build /opt/edgedeploy /opt/edgedeploy
ENV PATH=/opt/edgedeploy/bin:$PATH PYTHONDONTWRITEBYTECODE=1
USER 1000
WORKDIR /models
ENTRYPOINT ["deploy"]
CMD ["--help"]
