"""The ssh transport through a real sshd on loopback."""

from __future__ import annotations

import sys

import pytest
from loopback_sshd import loopback_sshd
from processes import ends

from edgedeploy.errors import InputError, MissingToolError, ToolFailedError
from edgedeploy.targets.transports import open_transport


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with loopback_sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def transport(server, monkeypatch):
    monkeypatch.setenv("EDGEDEPLOY_SSH_CONFIG", str(server.config))
    return open_transport(server.address)


def test_arguments_arrive_exactly_as_given(transport):
    arguments = ["two words", "$HOME", "a'b\"c", "`id`", "; false", "*", "\n", "ü", "--flag"]
    code = "import sys; print(ascii(sys.argv[1:]))"
    done = transport.run([sys.executable, "-c", code, *arguments], timeout_s=120)
    assert done.returncode == 0
    assert done.stdout.strip() == ascii(arguments)


def test_environment_exit_code_and_both_streams_come_back(transport):
    code = "import os, sys; print(os.environ['GREETING']); print('so', file=sys.stderr); sys.exit(7)"
    done = transport.run([sys.executable, "-c", code], timeout_s=120, env={"GREETING": "it's $HOME"})
    assert (done.returncode, done.stdout, done.stderr) == (7, "it's $HOME\n", "so\n")


def test_files_and_folders_go_there_and_back(transport, tmp_path):
    source = tmp_path / "a folder"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "x'y.bin").write_bytes(bytes(range(256)) * 1000)
    remote = str(tmp_path / "device side" / "copy")
    transport.push(source, remote)
    transport.pull(remote, tmp_path / "back" / "again")
    assert (tmp_path / "back" / "again" / "deep" / "x'y.bin").read_bytes() == bytes(range(256)) * 1000
    transport.push(source / "deep" / "x'y.bin", str(tmp_path / "device side" / "single.bin"))
    transport.pull(str(tmp_path / "device side" / "single.bin"), tmp_path / "single.bin")
    assert (tmp_path / "single.bin").read_bytes() == bytes(range(256)) * 1000


def test_a_program_that_hangs_is_ended_on_the_device_too(transport, tmp_path):
    there = tmp_path / "pid"
    for timeout_s in (1, 10, 100):  # until even a busy machine gets so far
        with pytest.raises(ToolFailedError, match=f"took longer than {timeout_s} s"):
            transport.run(["sh", "-c", f"echo $$ > {there}; exec sleep 100000"], timeout_s=timeout_s)
        if there.is_file() and (said := there.read_text()).endswith("\n"):
            break
    assert ends(int(said))


def test_fetching_what_is_not_there_says_what(transport, tmp_path):
    with pytest.raises(ToolFailedError, match="Fetching") as caught:
        transport.pull(str(tmp_path / "nothing"), tmp_path / "x")
    assert "nothing" in caught.value.found
    assert not (tmp_path / "x").exists()


def test_sending_what_is_not_there_is_the_users_mistake(transport, tmp_path):
    with pytest.raises(InputError, match="cannot be sent"):
        transport.push(tmp_path / "nothing", "x")


def test_an_unknown_host_key_is_refused_with_the_way_on(server, monkeypatch, tmp_path):
    config = tmp_path / "config"
    config.write_text(server.config.read_text().replace("known_hosts", "no_such_hosts"))
    monkeypatch.setenv("EDGEDEPLOY_SSH_CONFIG", str(config))
    with pytest.raises(ToolFailedError, match="cannot be reached") as caught:
        open_transport(server.address).run(["true"], timeout_s=120)
    assert "Connect once by hand" in caught.value.remedy


def test_a_key_that_the_device_does_not_know_is_refused_without_a_password_prompt(server, monkeypatch, tmp_path):
    config = tmp_path / "config"
    config.write_text(server.config.read_text().replace("user_key", "host_key"))
    monkeypatch.setenv("EDGEDEPLOY_SSH_CONFIG", str(config))
    with pytest.raises(ToolFailedError, match="cannot be reached") as caught:
        open_transport(server.address).run(["true"], timeout_s=120)
    assert "ssh-copy-id" in caught.value.remedy


def test_a_port_where_nobody_listens(server, monkeypatch):
    monkeypatch.setenv("EDGEDEPLOY_SSH_CONFIG", str(server.config))
    with pytest.raises(ToolFailedError, match="cannot be reached") as caught:
        open_transport("ssh:someone@127.0.0.1:1").run(["true"], timeout_s=120)
    assert "Connection refused" in caught.value.found
    assert "ssh:USER@HOST:PORT" in caught.value.remedy


def test_no_ssh_client(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match="ssh is needed"):
        open_transport("ssh:pi@kitchen").run(["true"], timeout_s=120)


@pytest.mark.parametrize(
    "address", ["ssh:", "ssh:-oProxyCommand=x", "ssh:u@-h", "ssh:a b@c", "ssh:u@h:port", "ssh:u@h;x"]
)
def test_an_address_that_is_none_is_the_users_mistake(address):
    with pytest.raises(InputError, match="cannot be read"):
        open_transport(address)
