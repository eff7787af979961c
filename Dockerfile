# Both daemons in one image. EXTRAS="kubelet" makes the node daemon's alone, without onnxruntime and the embedder.
ARG PYTHON=3.11-slim-bookworm
FROM python:${PYTHON} AS build
ARG EXTRAS=kubelet,evaluators,otel
WORKDIR /src
COPY . .
RUN python -m venv /opt/palegreen \
    && /opt/palegreen/bin/pip install --no-cache-dir --disable-pip-version-check ".[${EXTRAS}]"

FROM python:${PYTHON}
COPY --from=build /opt/palegreen /opt/palegreen
RUN install -d -o 65534 -g 65534 /var/lib/palegreen
# The library and the device nodes of the driver come from the NVIDIA container runtime.
ENV PATH=/opt/palegreen/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=utility
USER 65534:65534
EXPOSE 9450 9451 8080
ENTRYPOINT ["palegreen"]
CMD ["node"]
