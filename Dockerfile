# docker build -t redy . && docker run --rm -v "$PWD:/data" -w /data redy reduce MODEL.onnx --bounds BOX.json -o small.onnx
FROM python:3.12-slim
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY redy ./redy
ENV NUMBA_CACHE_DIR=/opt/redy-kernels
RUN pip install --no-cache-dir . && redy warmup --quiet && chmod -R a+rX /opt/redy-kernels
ENTRYPOINT ["redy"]
CMD ["--help"]
