# dgm-bench on a CPU, with the versions that the stored records were made with.
#
#     docker build -t dgm-bench .
#     docker run --rm dgm-bench table ffjord/density
#     docker run --rm -v "$PWD:/work" -v dgm-data:/data dgm-bench run 'ffjord/density/*/digits'
#
# Records of runs appear in ./dgm-results; --user "$(id -u)" makes them yours where you are not user 1000.
# On x86 the package index has torch with its CUDA libraries (5.5 GB). For one without (1 GB), name PyTorch's own CPU index, as
# its installation page says: --build-arg PIP_EXTRA_INDEX_URL=...
# What only reads needs none of it (0.5 GB): --build-arg EXTRAS=

# The records' Python, to its minor version.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
ARG EXTRAS=train,images,tables,tracking
# pip reads it from the environment, where an argument is for the commands of its stage alone.
ARG PIP_EXTRA_INDEX_URL=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
COPY . .
# An environment of its own, which is all that the next stage takes: no source, no pip's cache.
RUN python -m venv /opt/dgm-bench \
 && /opt/dgm-bench/bin/pip install --constraint results/environment.lock ".${EXTRAS:+[$EXTRAS]}"

FROM python:${PYTHON}-slim
COPY --from=build /opt/dgm-bench /opt/dgm-bench
# /data outlives the container as a volume. A user without a home has the cache, and matplotlib's, below /tmp.
ENV PATH=/opt/dgm-bench/bin:$PATH DGM_BENCH_DATA=/data XDG_CACHE_HOME=/tmp/cache
RUN useradd --uid 1000 --create-home bench \
 && mkdir --mode 1777 /data /work
# Runs execute code of libraries on files from elsewhere: nothing of that needs root.
USER bench
WORKDIR /work
ENTRYPOINT ["dgm-bench"]
CMD ["--help"]
