# souk with everything that its services run: Airflow, dbt, Spark and the models' libraries.
FROM python:3.11.14-slim-bookworm

RUN apt-get update \
    && apt-get install --yes --no-install-recommends openjdk-17-jre-headless procps tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home souk \
    && install --directory --owner=souk --group=souk /var/lib/souk

# PyTorch's own CPU index, as a build argument, gives a build without CUDA: a tenth of the size. pip reads the variable.
ARG PIP_EXTRA_INDEX_URL
WORKDIR /opt/souk
COPY requirements.in constraints.txt ./
RUN pip install --no-cache-dir -c constraints.txt -r requirements.in

COPY dags dags
COPY dbt dbt
COPY ml ml
COPY souk souk
COPY spark_jobs spark_jobs
COPY sql sql

ENV PYTHONPATH=/opt/souk \
    PYTHONUNBUFFERED=1 \
    SOUK_HOME=/var/lib/souk \
    AIRFLOW_HOME=/var/lib/souk/airflow \
    DO_NOT_TRACK=1 \
    SCARF_NO_ANALYTICS=1 \
    GX_ANALYTICS_ENABLED=false
USER souk
VOLUME /var/lib/souk
ENTRYPOINT ["tini", "--"]
