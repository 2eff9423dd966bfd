"""What the environment says, each name in one place.

======================== ========================================== ===============================================
variable                 default                                    meaning
======================== ========================================== ===============================================
OPENAI_BASE_URL          (none: the scripted researcher)            OpenAI-compatible endpoint, ending in /v1
OPENAI_API_KEY           (none)                                     its key; local endpoints often need none
OPENAI_API_KEY_FILE      (none)                                     file that holds it, in place of OPENAI_API_KEY
BILEVEL_MODEL            (none)                                     model name, as that endpoint calls it
BILEVEL_MODEL_TIMEOUT    120                                        seconds that one answer may take
BILEVEL_MODEL_RETRIES    4                                          repeats after a transient failure
BILEVEL_TEMPERATURE      (the endpoint's)                           sampling temperature, 0 to 2
BILEVEL_MAX_TOKENS       (the endpoint's)                           longest answer, in tokens
BILEVEL_CONTEXT_TOKENS   32000                                      longest prompt, in estimated tokens; 0: no limit
BILEVEL_PRICE_INPUT      (unknown)                                  price of a million prompt tokens, in US dollars
BILEVEL_PRICE_CACHED     (BILEVEL_PRICE_INPUT)                      price of a million cached prompt tokens
BILEVEL_PRICE_OUTPUT     (unknown)                                  price of a million completion tokens
BILEVEL_PRICES           (none)                                     TOML file of prices by model, see docs/models.md
BILEVEL_RECORD           (none)                                     folder that receives every conversation
BILEVEL_REPLAY           (none)                                     folder of a recording that answers instead
BILEVEL_CONFIG           ~/.config/bilevel/config.toml              TOML file with settings of these names
BILEVEL_HOME             ~/.local/share/bilevel                     databases, reports, libraries
BILEVEL_CACHE            ~/.cache/bilevel                           what can be made again: tokenised data
BILEVEL_DATABASE         (a file under BILEVEL_HOME)                SQLAlchemy URL of a service's database
BILEVEL_DATABASE_FILE    (none)                                     file that holds that URL, for one with a password
BILEVEL_PATIENCE         900                                        seconds to wait for what is away; 0: not at all
BILEVEL_LEASE_SECONDS    10                                         seconds until another service takes over, 1 to 3600
BILEVEL_LOG_FORMAT       console on a terminal, else json           console or json
BILEVEL_LOG_LEVEL        info                                       debug, info, warning or error
BILEVEL_METRICS          (none: no metrics)                         HOST:PORT where a service exposes its metrics
BILEVEL_METRICS_INSECURE 0                                          1 allows an address that other machines reach
BILEVEL_INNER            127.0.0.1:7402                             where commands find the inner service
BILEVEL_OUTER            127.0.0.1:7403                             where commands find the outer service
BILEVEL_TASKS            (none)                                     tasks of the inner service: NAME=HOST:PORT, ...
BILEVEL_TASKS_FILE       (none)                                     TOML file of its tasks, for task services with TLS
BILEVEL_TLS_CERT         (none: no TLS)                             certificate chain that a server shows, PEM
BILEVEL_TLS_KEY          (none)                                     its key, PEM
BILEVEL_TLS_CLIENT_CA    (none)                                     CA of client certificates: mutual TLS
BILEVEL_TOKENS           (none: no tokens)                          a server's token file, see `bilevel tokens`
BILEVEL_MAX_STREAMS      512                                        streams that one caller may hold open at a server
BILEVEL_MAX_ACTIVE_RUNS  0                                          runs, or campaigns, of a token at a time; 0: any
BILEVEL_MAX_STORED_RUNS  0                                          runs, or campaigns, of a token in all; 0: any
BILEVEL_CA               (none: no TLS)                             CA that a client trusts, PEM
BILEVEL_CLIENT_CERT      (none)                                     certificate chain that a client shows, PEM
BILEVEL_CLIENT_KEY       (none)                                     its key, PEM
BILEVEL_SERVER_NAME      (the host of the address)                  name in the server's certificate
BILEVEL_TOKEN            (none)                                     token that a client shows
BILEVEL_TOKEN_FILE       (none)                                     file that holds it, read with every call
BILEVEL_INSECURE         0                                          1 lets a token travel in clear text
======================== ========================================== ===============================================

Of the dashboard:

==================================== ==================== ==================================================
variable                             default              meaning
==================================== ==================== ==================================================
BILEVEL_DASHBOARD_PASSWORD           (none: no login)     password of the dashboard, 12 characters or more
BILEVEL_DASHBOARD_PASSWORD_FILE      (none)               file that holds it, read with every login
BILEVEL_DASHBOARD_VIEW_PASSWORD      (none)               another one, which allows looking only
BILEVEL_DASHBOARD_VIEW_PASSWORD_FILE (none)               file that holds that
BILEVEL_DASHBOARD_SESSION_HOURS      12                   hours until it asks again
BILEVEL_DASHBOARD_HOSTS              (none)               names by which browsers may call it: HOST, ...
==================================== ==================== ==================================================
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service_kit.errors import InvalidArgument, Violation
from service_kit.secret_files import readable_secret, secret_of

SCRIPTED_URL = "http://127.0.0.1:7400/v1"
"""Where the scripted researcher listens unless told otherwise."""
SCRIPTED_MODEL = "scripted-researcher"
"""What it calls itself: every model name that begins with "scripted" is labelled as such."""


class EnvironmentSettings(BaseSettings):
    """Base: fields are read from the environment variable named as their alias; an empty variable counts as unset."""

    model_config = SettingsConfigDict(env_ignore_empty=True, case_sensitive=True, frozen=True, extra="forbid")

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """The settings of this process, with ``overrides`` by field name.

        Raises :class:`InvalidArgument` naming each wrong variable.
        """
        aliases = {name: field.alias or name for name, field in cls.model_fields.items()}
        try:
            return cls(**{aliases[name]: value for name, value in overrides.items()})
        except ValidationError as error:
            wrong = [_violation(".".join(map(str, e["loc"])), e["msg"]) for e in error.errors()]
            # "from None": the validation error quotes the values, and one of them may be a key.
            hint = "Mend or unset it; `bilevel config show` says what each setting means and where it comes from."
            raise InvalidArgument(wrong, hint=hint) from None


class ModelSettings(EnvironmentSettings):
    """The language model that both loops use."""

    base_url: str | None = Field(None, alias="OPENAI_BASE_URL")
    api_key_file: Path | None = Field(None, alias="OPENAI_API_KEY_FILE")
    api_key: SecretStr | None = Field(None, alias="OPENAI_API_KEY", validate_default=True)
    model: str | None = Field(None, alias="BILEVEL_MODEL")
    timeout: float = Field(120.0, alias="BILEVEL_MODEL_TIMEOUT", gt=0)
    """Seconds that one answer may take."""
    retries: int = Field(4, alias="BILEVEL_MODEL_RETRIES", ge=0, le=20)
    temperature: float | None = Field(None, alias="BILEVEL_TEMPERATURE", ge=0, le=2)
    max_tokens: int | None = Field(None, alias="BILEVEL_MAX_TOKENS", ge=1)
    price_input: float | None = Field(None, alias="BILEVEL_PRICE_INPUT", ge=0)
    """US dollars for a million prompt tokens; the cost is unknown unless both prices are set."""
    price_output: float | None = Field(None, alias="BILEVEL_PRICE_OUTPUT", ge=0)
    price_cached: float | None = Field(None, alias="BILEVEL_PRICE_CACHED", ge=0)
    prices: Path | None = Field(None, alias="BILEVEL_PRICES")
    """A TOML file: a table for each model with ``input``, ``output`` and, if it differs, ``cached``."""
    context_tokens: int = Field(32_000, alias="BILEVEL_CONTEXT_TOKENS", ge=0)
    """Longest prompt in estimated tokens: longer ones leave out what matters least, and say so; 0 is no limit."""
    record: Path | None = Field(None, alias="BILEVEL_RECORD")
    """Folder in which each service records its conversations with the model."""
    replay: Path | None = Field(None, alias="BILEVEL_REPLAY")
    """Folder of such a recording; it answers in place of an endpoint."""

    @field_validator("base_url")
    @classmethod
    def _is_http(cls, url: str | None) -> str | None:
        if url is not None and not _is_web_address(url):
            raise ValueError("must be an http:// or https:// address, for example http://127.0.0.1:11434/v1")
        return url

    @field_validator("api_key_file")
    @classmethod
    def _holds_a_key(cls, file: Path | None) -> Path | None:
        return readable_secret(file)

    @field_validator("api_key", mode="before")
    @classmethod
    def _from_its_file(cls, key: object, info: ValidationInfo) -> object:
        return secret_of(key, info.data.get("api_key_file"), "OPENAI_API_KEY")

    @field_validator("api_key")
    @classmethod
    def _fits_a_header(cls, key: SecretStr | None) -> SecretStr | None:
        return _printable(key)

    @field_validator("model")
    @classmethod
    def _has_an_endpoint(cls, model: str | None, info: ValidationInfo) -> str | None:
        wrong_before = {"base_url", "api_key_file", "api_key"} - info.data.keys()
        if model is not None and model != SCRIPTED_MODEL and not wrong_before and not any(info.data.values()):
            raise ValueError(
                "names a model, but neither OPENAI_BASE_URL nor OPENAI_API_KEY says where it is; set one of them, "
                "or unset this to let the scripted researcher answer"
            )
        return model

    @field_validator("replay")
    @classmethod
    def _one_direction(cls, replay: Path | None, info: ValidationInfo) -> Path | None:
        if replay is not None and info.data.get("record") is not None:
            raise ValueError("cannot be combined with BILEVEL_RECORD: unset one of them")
        return replay

    @property
    def configured(self) -> bool:
        """Whether the environment chose an endpoint; if not, the scripted researcher stands in."""
        return self.base_url is not None or self.api_key is not None

    def or_scripted(self) -> Self:
        """These settings; where the environment chose no endpoint, those of the scripted researcher on its own port."""
        if self.configured:
            return self
        return self.model_copy(update={"base_url": SCRIPTED_URL, "model": SCRIPTED_MODEL})


class PathSettings(EnvironmentSettings):
    """Where things are kept."""

    home: Path = Field(Path("~/.local/share/bilevel"), alias="BILEVEL_HOME")
    """Data that must not be lost: databases, reports, libraries."""
    cache: Path = Field(Path("~/.cache/bilevel"), alias="BILEVEL_CACHE")
    """Data that can be made again."""
    database_file: Path | None = Field(None, alias="BILEVEL_DATABASE_FILE")
    database: str | None = Field(None, alias="BILEVEL_DATABASE", validate_default=True)
    lease_seconds: float = Field(10.0, alias="BILEVEL_LEASE_SECONDS", ge=1, le=3600)
    """How long work rests when the service that did it has died, where several share a database."""

    @field_validator("database_file")
    @classmethod
    def _holds_a_url(cls, file: Path | None) -> Path | None:
        return readable_secret(file)

    @field_validator("database", mode="before")
    @classmethod
    def _from_its_file(cls, url: object, info: ValidationInfo) -> object:
        return secret_of(url, info.data.get("database_file"), "BILEVEL_DATABASE")

    @field_validator("home", "cache")
    @classmethod
    def _expand(cls, path: Path) -> Path:
        return path.expanduser().absolute()

    def database_url(self, service: str) -> str:
        """The SQLAlchemy URL of a service's database: the configured one, or ``SERVICE.db`` in the data directory."""
        return self.database or f"sqlite:///{self.home / service}.db"


class ServerNetworkSettings(EnvironmentSettings):
    """How servers of this process protect themselves."""

    certificate: Path | None = Field(None, alias="BILEVEL_TLS_CERT")
    key: Path | None = Field(None, alias="BILEVEL_TLS_KEY")
    client_ca: Path | None = Field(None, alias="BILEVEL_TLS_CLIENT_CA")
    tokens: Path | None = Field(None, alias="BILEVEL_TOKENS")
    max_streams: int = Field(512, alias="BILEVEL_MAX_STREAMS", ge=1, le=100_000)

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("BILEVEL_TLS_CERT must be set together with BILEVEL_TLS_KEY")
        if self.client_ca is not None and self.certificate is None:
            raise ValueError("BILEVEL_TLS_CLIENT_CA needs BILEVEL_TLS_CERT and BILEVEL_TLS_KEY")
        return self


class ClientNetworkSettings(EnvironmentSettings):
    """How clients of this process protect themselves and show who they are."""

    ca: Path | None = Field(None, alias="BILEVEL_CA")
    certificate: Path | None = Field(None, alias="BILEVEL_CLIENT_CERT")
    key: Path | None = Field(None, alias="BILEVEL_CLIENT_KEY")
    server_name: str | None = Field(None, alias="BILEVEL_SERVER_NAME")
    token: SecretStr | None = Field(None, alias="BILEVEL_TOKEN")
    token_file: Path | None = Field(None, alias="BILEVEL_TOKEN_FILE")
    insecure: bool = Field(False, alias="BILEVEL_INSECURE")

    @field_validator("token")
    @classmethod
    def _fits_a_header(cls, token: SecretStr | None) -> SecretStr | None:
        return _printable(token)

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("BILEVEL_CLIENT_CERT must be set together with BILEVEL_CLIENT_KEY")
        if self.ca is None and (self.certificate is not None or self.server_name is not None):
            raise ValueError(
                "BILEVEL_CA must be set for BILEVEL_CLIENT_CERT or BILEVEL_SERVER_NAME: there is no TLS without it"
            )
        if self.token is not None and self.token_file is not None:
            raise ValueError("BILEVEL_TOKEN must not be set beside BILEVEL_TOKEN_FILE")
        return self


def _printable(secret: SecretStr | None) -> SecretStr | None:
    if secret is not None and not re.fullmatch(r"[!-~]+", secret.get_secret_value()):
        raise ValueError("must be printable ASCII without spaces or line breaks; it is not shown here")
    return secret


def _is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        return False


def _violation(field: str, message: str) -> Violation:
    """Of one variable; what concerns several has no field, and its sentence begins with the first one."""
    sentence = _lower_first(message) if field else message.removeprefix("Value error, ")
    if not field:
        field, _, sentence = sentence.partition(" ")
    return Violation(field, sentence)


def _lower_first(sentence: str) -> str:
    sentence = sentence.removeprefix("Value error, ").replace("Input should be", "must be")
    return sentence[:1].lower() + sentence[1:]


KNOWN_VARIABLES = frozenset(
    {
        "BILEVEL_CONFIG",
        "BILEVEL_DASHBOARD_HOSTS",
        "BILEVEL_DASHBOARD_PASSWORD",
        "BILEVEL_DASHBOARD_PASSWORD_FILE",
        "BILEVEL_DASHBOARD_SESSION_HOURS",
        "BILEVEL_DASHBOARD_VIEW_PASSWORD",
        "BILEVEL_DASHBOARD_VIEW_PASSWORD_FILE",
        "BILEVEL_INNER",
        "BILEVEL_OUTER",
        "BILEVEL_LOG_FORMAT",
        "BILEVEL_LOG_LEVEL",
        "BILEVEL_MAX_ACTIVE_RUNS",
        "BILEVEL_MAX_STORED_RUNS",
        "BILEVEL_METRICS",
        "BILEVEL_METRICS_INSECURE",
        "BILEVEL_PATIENCE",
        "BILEVEL_TASKS",
        "BILEVEL_TASKS_FILE",
        *(
            field.alias or name
            for settings in EnvironmentSettings.__subclasses__()
            for name, field in settings.model_fields.items()
        ),
    }
)
"""Every environment variable of ours that something reads, the other modules' included."""
