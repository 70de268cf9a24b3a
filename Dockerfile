# The server on a CPU:   docker build -t janus-r1 . && docker run -p 8000:8000 -e JANUS_R1_API_KEY=... janus-r1
# On a GPU: run with --gpus all and --device cuda. pip takes PyPI's torch, which brings CUDA along; for the CPU build, far
# smaller, name PyTorch's index of it: --build-arg PIP_EXTRA_INDEX_URL=... Without the page: --build-arg PAGE=no. Models
# from the Hub go into /models, which is best a volume, and chains that the page keeps into /chains (--gallery).
FROM python:3.11-slim

RUN useradd --create-home janus && mkdir /models /chains && chown janus /models /chains
WORKDIR /app
COPY pyproject.toml constraints.txt constraints-page.txt README.md LICENSE ./
COPY src src
ARG PIP_EXTRA_INDEX_URL=
RUN pip install --no-cache-dir -c constraints.txt ".[serve,lora]"
# gradio asks for an older Pillow than constraints.txt has: docs/serving.md
ARG PAGE=yes
RUN if [ "$PAGE" = yes ]; then pip install --no-cache-dir -c constraints-page.txt "gradio[mcp]" pillow; fi

USER janus
ENV HF_HOME=/models OMP_WAIT_POLICY=PASSIVE GRADIO_ANALYTICS_ENABLED=False
EXPOSE 8000
HEALTHCHECK --start-period=120s CMD python -c "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health')"
STOPSIGNAL SIGTERM
ENTRYPOINT ["janus-r1", "serve", "--host", "0.0.0.0"]
