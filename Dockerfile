# The server on a CPU:   docker build -t janus-r1 . && docker run -p 8000:8000 -e JANUS_R1_API_KEY=... janus-r1
# On a GPU: run with --gpus all and --device cuda. For another build of torch than pip's own choice, name its index with
# --build-arg PIP_EXTRA_INDEX_URL=... Models from the Hub go into /models, which is best a volume.
FROM python:3.11-slim

RUN useradd --create-home janus && mkdir /models /chains && chown janus /models /chains
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
ARG PIP_EXTRA_INDEX_URL=
RUN pip install --no-cache-dir -c constraints.txt ".[serve,lora]"

USER janus
ENV HF_HOME=/models OMP_WAIT_POLICY=PASSIVE GRADIO_ANALYTICS_ENABLED=False
EXPOSE 8000
HEALTHCHECK --start-period=120s CMD python -c "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health')"
STOPSIGNAL SIGTERM
ENTRYPOINT ["janus-r1", "serve", "--host", "0.0.0.0"]
