"""Which addresses a client may name, and how configured ones are reached: TLS, tokens, settings files."""

import asyncio
import contextlib
import datetime
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from bilevel.v1 import inner_pb2, task_pb2, task_pb2_grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from inner_service.__main__ import _parser, options_of
from inner_service.task_address import TaskAddress, from_file
from inner_service.tasks import Tasks
from service_kit.errors import InvalidArgument, ServiceError, Unavailable

HOSTILE = [
    "10.0.0.1:7000",
    "example.org:7000",
    "localhost.:7000",
    "localhost.example.org:7000",
    "LOCALHOST:7000",
    "127.0.0.1.nip.io:7000",
    "127.1:7000",
    "127.0.0.01:7000",
    "2130706433:7000",
    "0x7f000001:7000",
    "017700000001:7000",
    "0.0.0.0:7000",
    "[::]:7000",
    "[::ffff:127.0.0.1]:7000",
    "[::ffff:10.0.0.1]:7000",
    "[::1%eth0]:7000",
    "::1:7000",
    "[0:0:0:0:0:0:0:1]:7000",
    "169.254.169.254:80",
    "127.0.0.1:0",
    "127.0.0.1:65536",
    "127.0.0.1:07000",
    "127.0.0.1:+7000",
    "127.0.0.1:70 00",
    "127.0.0.1:7000\n",
    " 127.0.0.1:7000",
    "127.0.0.1:7000/",
    "127.0.0.1:7000#@10.0.0.1:7000",
    "user@127.0.0.1:7000",
    "127.0.0.1:7000,10.0.0.1:7000",
    "127.0.0.1\uff0e1:7000",
    "127.0.0.1:\u0667\u0660\u0660\u0660",
    "dns:///localhost:7000",
    "dns://10.0.0.1/localhost:7000",
    "ipv4:127.0.0.1:7000",
    "ipv6:[::1]:7000",
    "http://127.0.0.1:7000",
    "unix:/run/docker.sock",
    "unix:///run/docker.sock",
    "unix-abstract:name",
    "vsock:2:1234",
    "xds:///task",
    ":7000",
    "localhost:",
    "localhost:7000:7000",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_every_other_spelling_of_an_address_is_refused_before_anything_is_dialled(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"spec\.task: must be the name of a configured task, or localhost:PORT"):
        Tasks({}, loopback=True).get(text)


@given(st.text(max_size=40).map(lambda text: f"{text}:7000"))
def test_whatever_is_accepted_is_loopback(text: str) -> None:
    try:
        address = TaskAddress.loopback(text)
    except InvalidArgument:
        return
    assert address.target in ("127.0.0.1:7000", "[::1]:7000")


def test_a_name_that_would_be_looked_up_never_is() -> None:
    assert TaskAddress.loopback("localhost:7000").target == "127.0.0.1:7000"
    assert TaskAddress.loopback("[::1]:65535").target == "[::1]:65535"


async def test_a_run_on_the_address_of_a_task_beside_the_service(serve_inner, served) -> None:
    address = served.address.replace("127.0.0.1", "localhost")
    async with serve_inner({}, loopback=True) as inner:
        [found] = (await inner.stub.ListTasks(inner_pb2.ListTasksRequest(names=[address]))).tasks
        assert found.description.name == "quadratic"
        assert not (await inner.stub.ListTasks(inner_pb2.ListTasksRequest())).tasks
        run, _ = await inner.driven(task=address, max_trials=2)
        assert (run.spec.task, run.decided_trials) == (address, 2)


async def test_a_run_on_an_address_goes_on_after_a_restart_and_stops_where_addresses_are_not_allowed(
    serve_inner, served, task
) -> None:
    async with serve_inner({}, loopback=True) as inner:
        name = await inner.create(task=served.address, max_trials=2)
        task.gate.clear()
        await inner.start(name)
        await task.started.get()
    async with serve_inner({}, loopback=False) as inner:
        paused = await inner.until_state(name, "PAUSED")
        assert "--loopback-tasks" in paused.run_state_changed.reason
    task.gate.set()
    async with serve_inner({}, loopback=True) as inner:
        await inner.resume(name)
        await inner.finished(name)
        assert (await inner.run(name)).decided_trials == 2


async def test_addresses_are_refused_unless_the_operator_allows_them(inner, served) -> None:
    error = await inner.refusal(inner.create(task=served.address))
    assert (error.code, [v.field for v in error.violations]) == ("INVALID_ARGUMENT", ["spec.task"])
    assert "--loopback-tasks" in error.hint


async def test_a_web_server_that_redirects_leads_nowhere(serve_inner) -> None:
    visited: list[str] = []

    async def elsewhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visited.append("elsewhere")
        writer.close()

    other = await asyncio.start_server(elsewhere, "127.0.0.1", 0)
    port = other.sockets[0].getsockname()[1]

    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visited.append("here")
        writer.write(f"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:{port}/\r\n\r\n".encode())
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(redirect, "127.0.0.1", 0)
    async with other, server, serve_inner({}, loopback=True) as inner:
        error = await inner.refusal(inner.create(task=f"127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    assert error.code in ("UNAVAILABLE", "FAILED_PRECONDITION")
    assert set(visited) == {"here"}


async def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(served, monkeypatch) -> None:
    for variable in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    tasks = Tasks({}, loopback=True)
    assert (await tasks.get(served.address).describe()).name == "quadratic"
    await tasks.close()


async def test_another_service_on_that_port_is_named_as_what_it_is(serve_inner) -> None:
    async with serve_inner({}, loopback=True) as inner:
        error = await inner.refusal(inner.create(task=inner.address))
    assert "is not a TaskService" in error.message


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        (["--listen", "127.0.0.1:0"], True),
        (["--listen", "[::1]:0"], True),
        (["--listen", "unix:/tmp/inner.sock"], True),
        (["--listen", "127.0.0.1:0", "--no-loopback-tasks"], False),
        (["--listen", "0.0.0.0:0", "--insecure"], False),
        (["--listen", "inner.example.org:0"], False),
        (["--listen", "0.0.0.0:0", "--loopback-tasks"], True),
    ],
)
def test_addresses_are_allowed_by_default_where_the_service_itself_is_on_loopback(arguments, allowed) -> None:
    assert options_of(_parser().parse_args([*arguments, "--task", "gpt=127.0.0.1:1"])).loopback_tasks is allowed


# Settings files, TLS and tokens


class Guarded(task_pb2_grpc.TaskServiceServicer):
    """Answers whoever shows the token."""

    async def Validate(self, request, context) -> task_pb2.ValidateResponse:  # noqa: N802
        if ("authorization", "Bearer swordfish") not in tuple(context.invocation_metadata()):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "show the token")
        return task_pb2.ValidateResponse()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[bytes, bytes]:
    """Key and certificate of a task server at task.test and 127.0.0.1."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "task.test")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("task.test")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    return key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain), certificate.public_bytes(pem)


@pytest.fixture
async def guarded(certificate: tuple[bytes, bytes]) -> AsyncIterator[str]:
    server = grpc.aio.server()
    task_pb2_grpc.add_TaskServiceServicer_to_server(Guarded(), server)
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([certificate]))
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


def written(folder: Path, address: str, certificate: bytes, token: str = "swordfish") -> Path:
    (folder / "ca.pem").write_bytes(certificate)
    (folder / "token").write_text(f"{token}\n")
    file = folder / "tasks.toml"
    file.write_text(
        f'[tasks.remote]\naddress = "{address}"\nca_file = "ca.pem"\nserver_name = "task.test"\ntoken_file = "token"\n'
    )
    return file


async def test_a_task_with_tls_and_a_token(guarded, certificate, tmp_path: Path) -> None:
    tasks = Tasks(from_file(written(tmp_path, guarded, certificate[1])))
    assert await tasks.get("remote").validate({}) == ()
    await tasks.close()


async def test_a_wrong_token_and_a_wrong_authority_are_told_apart(guarded, certificate, tmp_path: Path) -> None:
    tasks = Tasks(from_file(written(tmp_path, guarded, certificate[1], token="sardine")))
    with pytest.raises(ServiceError, match="show the token"):
        await tasks.get("remote").validate({})
    await tasks.close()
    file = written(tmp_path, guarded, certificate[1])
    file.write_text(file.read_text().replace("task.test", "other.test"))
    tasks = Tasks(from_file(file))
    with pytest.raises(Unavailable):
        await tasks.get("remote").validate({})
    await tasks.close()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[tasks.a]\naddress = "here"', "tasks.a: must be HOST:PORT"),
        ('[tasks.A]\naddress = "h:1"', "lowercase"),
        ("[tasks.a]\n", "tasks.a.address: field required"),
        ('[tasks.a]\naddress = "h:1"\ntoken = "swordfish"', "tasks.a.token: extra inputs"),
        ('[tasks.a]\naddress = "h:1"\nca_file = "x.pem"', "x.pem: no such file"),
        ('[tasks.a]\naddress = "h:1"\nca_file = "secret"', "is not in PEM form"),
        ('[tasks.a]\naddress = "127.0.0.1:1"\nserver_name = "x"', "tasks.a.ca_file: must be given"),
        ('[tasks.a]\naddress = "10.0.0.1:1"\ntoken_file = "secret"', "must be given where a token goes to another"),
        ('[tasks.a]\naddress = "127.0.0.1:1"\ntoken_file = "bad"', "must hold one token"),
        ("tasks = [", "must be a TOML file"),
    ],
)
def test_a_wrong_settings_file_names_the_key_and_never_the_token(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "secret").write_text("swordfish")
    (tmp_path / "bad").write_text("sword fish")
    file = tmp_path / "tasks.toml"
    file.write_text(text)
    with pytest.raises(InvalidArgument) as caught:
        from_file(file)
    assert says.lower() in str(caught.value).lower()
    assert "sword" not in str(caught.value)


def test_tasks_of_the_file_and_of_the_command_line_together(tmp_path: Path, certificate) -> None:
    file = written(tmp_path, "gpu.example.org:7401", certificate[1])
    options = options_of(_parser().parse_args(["--tasks", str(file), "--task", "near=127.0.0.1:1"]))
    assert {name: address.security.tls is not None for name, address in options.tasks.items()} == {
        "remote": True,
        "near": False,
    }
    with pytest.raises(InvalidArgument, match="remote is there and in --task"):
        options_of(_parser().parse_args(["--tasks", str(file), "--task", "remote=127.0.0.1:1"]))
    assert "swordfish" not in repr(options)
