# The server in a container: `docker compose up`, or
#
#   docker build -t comfyui-over-ssh .
#   docker run -p 127.0.0.1:5000:5000 -v comfyui-workflow:/data \
#     -e COMFYUI_WORKFLOW_API_TOKEN=… -v ~/.ssh/id_ed25519:/run/secrets/ssh_key:ro comfyui-over-ssh
#
# It listens beyond loopback, so without COMFYUI_WORKFLOW_API_TOKEN it says so and ends.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY comfyui_workflow comfyui_workflow
COPY static static
COPY templates templates
RUN python -m venv /opt/comfyui-workflow \
    && /opt/comfyui-workflow/bin/pip install --no-cache-dir --disable-pip-version-check .

FROM python:${PYTHON}-slim
# That of the person who owns the mounted key: another user may not read it.
ARG UID=1000
RUN useradd --uid "${UID}" --create-home comfyui \
    && install --directory --mode 0700 --owner comfyui --group comfyui /data
COPY --from=build /opt/comfyui-workflow /opt/comfyui-workflow
ENV PATH=/opt/comfyui-workflow/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    COMFYUI_WORKFLOW_HOST=0.0.0.0 \
    COMFYUI_WORKFLOW_PORT=5000 \
    COMFYUI_WORKFLOW_DATA_DIR=/data \
    COMFYUI_WORKFLOW_STATE_FILE=/data/state.json \
    COMFYUI_WORKFLOW_SSH_KEY=/run/secrets/ssh_key
USER ${UID}
VOLUME /data
EXPOSE 5000
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:5000/health', timeout=4)"]
CMD ["comfyui-workflow", "serve"]
