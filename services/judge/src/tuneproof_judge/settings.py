"""The judge's settings."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, field_validator, model_validator

from tuneproof.servicekit.http import is_http
from tuneproof.servicekit.settings import Address, ServiceSettings, settings_config


class JudgeSettings(ServiceSettings):
    """Grades answers by rubrics, with a model at an OpenAI-compatible endpoint, and by words."""

    model_config = settings_config("judge")

    http_bind: Address = Field(
        "127.0.0.1:0",
        description="host:port of the same calls by HTTP and JSON; port 0 takes a free one. It"
        " takes the same tokens and certificates as gRPC.",
    )
    endpoint_url: str = Field(
        "",
        description="Base URL of an OpenAI-compatible endpoint, as http://127.0.0.1:8000/v1."
        " Without it the judge gives lexical scores only and refuses to grade by a rubric.",
    )
    endpoint_model: str = Field(
        "", description="The judge model's name at the endpoint; every grade names it."
    )
    api_key: SecretStr = Field(
        SecretStr(""),
        description="The endpoint's key. Set it in the environment: other users of the machine can"
        " see flags.",
    )
    api_key_file: Path | None = Field(
        None,
        description="File with that key, such as one of a mounted Secret; read again when it"
        " changes.",
    )
    endpoint_tls_dir: Path | None = Field(
        None,
        description="For an endpoint at https:// with certificates of your own: a folder with"
        " ca.crt and, if the endpoint asks for one, the judge's certificate (tls.crt, tls.key)."
        " Read again when they change.",
    )
    rubrics: Path | None = Field(
        None,
        description="Folder of rubric files (*.yaml), added to those that come with the judge.",
    )
    jury: Path | None = Field(
        None,
        description="File that names several judges instead of one endpoint; a grade is then the"
        " mean of theirs, and tells how far they agree.",
    )
    cache: Path | None = Field(
        None,
        description="SQLite file that keeps completions, so that nothing is paid for twice;"
        " several judges of one machine may share it.",
    )
    batch: bool = Field(
        False,
        description="Asks by the endpoint's batch API (/files and /batches), which costs less and"
        " takes up to a day: what has not come yet is UNAVAILABLE, and there when the same is asked"
        " again. Needs a cache.",
    )
    batch_poll: float = Field(
        30.0, gt=0, description="Seconds between two looks at the queue and at the batches."
    )
    prices: Path | None = Field(
        None,
        description="File with the prices of tokens by model; replies then tell what they cost.",
    )
    similarity_url: str = Field(
        "",
        description="Base URL of a server of embeddings that speaks OpenAI's protocol, as Text"
        " Embeddings Inference does; lexical scores then hold the cosine of answer and reference.",
    )
    similarity_model: str = Field("", description="The embedding model's name at that server.")
    similarity_key_file: Path | None = Field(
        None, description="File with that server's key; read again when it changes."
    )
    bertscore: Path | None = Field(
        None,
        description="Folder of an encoder in the format of transformers; lexical scores then hold"
        " BERTScore by it. Needs tuneproof-judge[bertscore].",
    )
    bertscore_layer: int | None = Field(
        None, ge=1, description="Its layer whose hidden states are compared; goes with it."
    )
    structured: bool = Field(
        False,
        description="Asks the endpoint for forms by a JSON schema (response_format), which fewer"
        " models get wrong; an endpoint that refuses it is asked for text. Scores may differ from"
        " those of forms in text: use one or the other throughout a study.",
    )
    concurrency: int = Field(
        32,
        ge=1,
        le=4096,
        description="Most completions by the endpoint in flight over all calls; fewer while it"
        " answers 429 or tells that little of a quota is left.",
    )
    choices: int = Field(
        10,
        ge=1,
        le=128,
        description="Most completions to ask for by one request (n): all repeats of a grade"
        " together. 1 asks for each alone. Best a divisor of concurrency: places too few for a"
        " request stay empty.",
    )
    request_timeout: float = Field(
        120.0,
        gt=0,
        description="Seconds for one request to the endpoint; the judge repeats a longer one.",
    )
    max_attempts: int = Field(
        5, ge=1, le=20, description="Requests for one repeat before it counts as failed."
    )

    @model_validator(mode="after")
    def _http_only_with_authentication(self) -> JudgeSettings:
        self.require_authentication("http_bind", self.http_bind)
        return self

    @field_validator("endpoint_url", "similarity_url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        if value and not is_http(value):
            raise ValueError("is not an http:// or https:// URL")
        return value

    @model_validator(mode="after")
    def _endpoint_fits_together(self) -> JudgeSettings:
        if self.api_key.get_secret_value() and self.api_key_file:
            raise ValueError("api_key and api_key_file are both set: leave one out")
        if self.endpoint_tls_dir and not self.endpoint_url.startswith("https://"):
            raise ValueError("endpoint_tls_dir is set, but endpoint_url does not begin with https")
        return self

    @model_validator(mode="after")
    def _similarities_are_whole(self) -> JudgeSettings:
        pairs = ("similarity_url", "similarity_model"), ("bertscore", "bertscore_layer")
        for names in pairs:
            missing = [name for name in names if not getattr(self, name)]
            if len(missing) == 1:
                raise ValueError(f"{' and '.join(names)} go together, and {missing[0]} is not set")
        if self.similarity_key_file and not self.similarity_url:
            raise ValueError("similarity_key_file is set, but similarity_url is not")
        return self

    @model_validator(mode="after")
    def _batches_need_a_cache(self) -> JudgeSettings:
        if self.batch and not self.cache:
            raise ValueError("batch is set, but cache is not: name the file that keeps what comes")
        return self

    @model_validator(mode="after")
    def _url_and_model_go_together(self) -> JudgeSettings:
        if self.jury and (self.endpoint_url or self.endpoint_model):
            raise ValueError("jury and endpoint_url or endpoint_model are both set: leave one out")
        if bool(self.endpoint_url) != bool(self.endpoint_model):
            given, missing = "endpoint_url", "endpoint_model"
            if not self.endpoint_url:
                given, missing = missing, given
            raise ValueError(f"{given} is set, but {missing} is not: set both, or neither")
        return self
