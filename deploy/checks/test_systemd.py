"""The unit, and what the README says of it, on a machine that systemd has booted: the real bridge, as shut in as it will be."""

from __future__ import annotations

import re
from collections.abc import Iterator

import orjson
import pytest
import trustme
from host import (
    COMMANDS,
    ENCRYPT,
    FILE,
    ONCE,
    ROTATE,
    SEE,
    SETTINGS,
    UPGRADE,
    Host,
    commands,
    installed,
    section,
    until,
)
from tools import DEPLOY, run

pytestmark = pytest.mark.timeout(300)  # the first waits for pip

UNIT = DEPLOY / "systemd" / "bridge.service"
README = section("systemd, without containers")


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with installed() as found:
        yield found


def test_the_unit_has_no_fault(host: Host) -> None:
    assert host.run("systemd-analyze verify --man=no /etc/systemd/system/bridge.service") == ""
    assert host.run("systemctl is-enabled bridge") == "enabled\n"


def test_it_is_as_shut_in_as_the_readme_says() -> None:
    run("systemd-analyze", "security", "--offline=true", "--threshold=20", UNIT)
    told = run("systemd-analyze", "security", "--offline=true", "--no-pager", UNIT)
    assert f"gives it {told.split('exposure level for bridge.service: ')[1].split()[0]} of 10" in README


def test_one_sees_that_it_runs(host: Host) -> None:
    seen = host.run(SEE)
    assert "Active: active (running)" in seen
    assert "service.started" in seen.splitlines()[-2]
    assert seen.endswith("ready\n")


def test_the_commands_work_beside_it_as_its_user(host: Host) -> None:
    seen = host.run(COMMANDS)
    assert "200 in" in seen
    assert "FAIL" not in seen
    assert host.run("find /var/lib/bridge ! -user bridge") == ""
    assert host.run("find /var/lib/bridge -perm /077") == ""


def test_a_webhook_becomes_an_event(host: Host) -> None:
    id_ = host.send()
    assert host.arrived(id_)["name"] == "stripe/customer.created"
    assert orjson.loads(host.bridge(f"show --json {id_}"))["state"] == "forwarded"


# In the place of certbot, which asks Let's Encrypt: takes port 80, and calls the hook that it is given.
CERTBOT = """#!/usr/bin/env bash
set -euo pipefail
[ "$1 $2 $3 $4 $5" = "certonly --standalone -d hooks.example.com --deploy-hook" ]
/usr/bin/python3 -c "import socket; socket.create_server(('', 80))"
bash -c "$6"
"""

DONE = {
    "a callback of ctypes",
    "a process",
    "a name looked up",
    "a port of IPv6",
    "to write state",
    "to write /tmp",
    "to write /dev/shm",
}
STOPPED = {
    "to write its configuration": "EROFS",
    "to write its code": "EROFS",
    "to write exports": "EROFS",
    "to read homes": "EACCES",
    "to read root's secrets": "EACCES",
    "to read how much memory there is": "ENOENT",
    "to read the kernel's log": "ENOENT",
    "to see another's process": "ENOENT",
    "a variable": "KeyError",
    "code made in memory": "EPERM",
    "packets": "EAFNOSUPPORT",
    "netlink": "EAFNOSUPPORT",
    "a namespace": "EPERM",
    "a mount": "EPERM",
    "to be root": "EPERM",
    "a setuid file": "EPERM",
    "a lower priority": "EPERM",
}
ALLOWED = {
    "STRIPE_API_KEY": "a variable",
    "write to a directory": "to write exports",
    "in homes": "to read homes",
    "machine's memory": "to read how much memory there is",
    "code that is made": "code made in memory",
    "lower priority": "a lower priority",
}
"""What each row of the README's table, but that of more memory, lets a transform do."""


def attempted(host: Host) -> dict[str, str]:
    """What came of all that the transform tries."""
    event = host.arrived(host.send())
    assert event["name"] == "checks/attempts"
    return dict(event["data"])


def test_a_transform_can_do_what_it_needs_and_nothing_else_until_it_is_allowed_to(host: Host) -> None:
    host.run("install -d -o bridge /srv/exports; install -D /dev/null /home/shared/file")
    host.run("install -m 644 deploy/checks/attempts.py /etc/bridge/transforms/stripe.py")
    host.restart()
    assert attempted(host) == dict.fromkeys(DONE, "done") | STOPPED
    assert host.run("find /var/lib/bridge -perm /077") == "", "what it writes is for nobody else"
    rows = dict(re.findall(r"^\| (.*?) \| `([A-Z]\w+=.*?)` \|$", README, re.MULTILINE))
    told = {row: line for row, line in rows.items() if "MemoryMax" not in line}
    host.run("install -m 600 /dev/stdin /etc/bridge/transforms.env", stdin="STRIPE_API_KEY=rk_of_the_checks\n")
    with host.changed(*rows.values()):
        done = {name for name, outcome in attempted(host).items() if outcome == "done"}
    assert done == DONE | set(ALLOWED.values())
    assert [key for row in told for key in ALLOWED if key in row] == list(ALLOWED)
    host.run("rm /etc/bridge/transforms/stripe.py")
    host.restart()


def test_the_newer_way_to_forbid_code_in_memory_holds_too(host: Host) -> None:
    """Systemd 253 and newer use the kernel's own: https://docs.kernel.org/userspace-api/mdwe.html, where there is one."""
    set_, become = "ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)", "os.execl('/opt/bridge/bin/bridge', 'bridge', 'serve')"
    first = f'/opt/bridge/bin/python -c "import ctypes, os; assert not {set_}; {become}"'
    with host.changed("ExecStart=", f"ExecStart={first}"):
        host.arrived(host.send())


def test_it_stops_in_order_and_leaves_nobody_behind(host: Host) -> None:
    host.run("systemctl stop bridge")
    assert host.shows("Result", "ExecMainCode", "ExecMainStatus") == ["success", "1", "0"]  # 1: it exited by itself
    assert host.run("pgrep -u bridge || true") == ""
    assert "service.stopped" in host.run("journalctl -u bridge -o cat -n 9")
    host.run("systemctl start bridge")
    host.until_ready()


def test_one_that_was_killed_is_started_again(host: Host) -> None:
    [before] = host.shows("MainPID")
    host.run(f"kill -KILL {before}")
    until(lambda: host.shows("MainPID")[0] not in {before, "0"}, otherwise=lambda: "it was not started again")
    host.until_ready()
    host.arrived(host.send())


def test_one_that_can_not_start_tries_again_until_what_is_wrong_is_mended(host: Host) -> None:
    host.run(f"sed -i '1i prot = 8080' {SETTINGS}; systemctl restart bridge")
    until(lambda: int(host.shows("NRestarts")[0]) >= 2, otherwise=lambda: "it was not started again")
    told = host.run("journalctl -u bridge -o cat -n 20")
    assert "bridge: prot: unknown key; did you mean port?" in told
    assert "status=2" in told
    host.run(f"sed -i 1d {SETTINGS}")
    host.until_ready()


def test_a_secret_is_for_root_and_the_bridge_alone(host: Host) -> None:
    for_others = "runuser -u nobody -- cat"
    for place in (
        "/etc/credstore/bridge.STRIPE_WEBHOOK_SECRET",
        "/run/credentials/bridge.service/STRIPE_WEBHOOK_SECRET",
    ):
        host.run(f"cat {place}")
        assert "Permission denied" in host.run(f"{for_others} {place}", status=1)
    [pid] = host.shows("MainPID")
    assert "whsec" not in host.run(f"cat /proc/{pid}/environ; systemctl show bridge")


def test_a_secret_is_rotated(host: Host) -> None:
    """The commands sign with the first."""
    host.run(ROTATE, stdin="whsec_new\nwhsec_of_the_checks\n")
    host.until_ready()
    host.send()
    old = "STRIPE_WEBHOOK_SECRET=whsec_of_the_checks /opt/bridge/bin/bridge send stripe customer.created"
    assert "200 in" in host.run(f"cd /; {old}")
    host.run(ROTATE, stdin="whsec_new\n")
    host.until_ready()
    host.send()
    assert "401 in" in host.run(f"cd /; {old}", status=1)


def test_a_secret_can_be_encrypted_on_the_disk(host: Host) -> None:
    host.run(ENCRYPT)
    host.until_ready()
    host.send()
    assert "whsec" not in host.run("cat /etc/credstore.encrypted/*")


def test_another_secret_needs_a_line(host: Host) -> None:
    [line] = re.findall(r"`(LoadCredential=.*?)`", README)
    host.run("install -m 600 /dev/stdin /etc/credstore/bridge.STRIPE_LIVE_SECRET", stdin="whsec_live\n")
    source = '[sources.stripe-live]\nprovider = "stripe"\nsecrets = ["env:STRIPE_LIVE_SECRET"]\n'
    with host.changed(line, settings=source):
        host.arrived(host.send("stripe customer.created --source stripe-live"))


def test_a_reload_reads_the_configuration_and_transforms_again(host: Host) -> None:
    before = host.shows("MainPID")
    [place] = re.findall(r"`secrets = \[\"file:(.*?)\"\]`", README)
    source = f'[sources.stripe]\nprovider = "stripe"\nsecrets = ["file:{place}"]\n'
    host.run(FILE, stdin="whsec_in_a_file\n")
    host.run("install -m 644 deploy/checks/attempts.py /etc/bridge/transforms/stripe.py")
    host.run(f"cp {SETTINGS} /tmp/settings; cat >>{SETTINGS}", stdin=source)
    host.run("systemctl reload bridge")
    host.until_logged('"configuration.taken"')
    assert attempted(host)
    host.run(FILE, stdin="whsec_in_the_same_file\n")
    until(lambda: "200 in" in host.bridge("send stripe customer.created || true"), otherwise=lambda: "it was not read")
    host.run(f"echo prot = 8080 >{SETTINGS}; systemctl reload bridge")
    host.until_logged('"configuration.refused"')
    assert host.ready() and host.shows("MainPID") == before
    host.run(f"cp /tmp/settings {SETTINGS}; rm /etc/bridge/transforms/stripe.py")
    host.restart()


def test_an_upgrade_is_an_installation_over_the_old_one(host: Host) -> None:
    [before] = host.shows("MainPID")
    host.run(f"rm {ONCE}; touch bridge/new.py")
    host.machine.run(UPGRADE, online=True)
    there = host.run("cd /opt/bridge/lib/python3*/site-packages; ls bridge/*.py").split()
    assert "bridge/new.py" in there and ONCE not in there, "what the new release has, and nothing of the old"
    host.until_ready()
    assert host.shows("MainPID") != [before]
    host.arrived(host.send())


def test_it_may_use_what_it_needs_and_no_more(host: Host) -> None:
    assert host.shows("LimitNOFILE", "MemoryMax", "TasksMax", "OOMPolicy") == ["65536", str(1 << 30), "512", "continue"]


def test_it_is_reached_through_nginx(host: Host) -> None:
    certificate, nginx, _, test = commands("Behind a proxy")
    authority, there = trustme.CA(), "/etc/letsencrypt/live/hooks.example.com"
    issued = authority.issue_cert("hooks.example.com")
    host.run("cat >/etc/authority.pem", stdin=authority.cert_pem.bytes().decode())
    host.run(f"mkdir -p {there}; cat >{there}/fullchain.pem", stdin=issued.cert_chain_pems[0].bytes().decode())
    host.run(f"cat >{there}/privkey.pem", stdin=issued.private_key_pem.bytes().decode())
    host.run("echo 127.0.0.1 hooks.example.com >>/etc/hosts")
    host.run("systemctl start nginx; curl -fsS http://127.0.0.1 >/dev/null")  # as Debian's package leaves it
    host.run("install -m 755 /dev/stdin /usr/local/bin/certbot", stdin=CERTBOT)
    host.run(certificate)
    trusting = "export SSL_CERT_FILE=/etc/authority.pem CURL_CA_BUNDLE=/etc/authority.pem"

    def is_reached() -> None:
        seen = host.bridge(f"--version; {trusting}\n{test}")
        assert "HTTP/1.1 200 OK" in seen
        assert "/webhooks/stripe: 200 in" in seen

    beside_others = (DEPLOY / "nginx.conf").read_text().partition("\nhttp {\n")[2].rpartition("}")[0]
    host.run("cat >/etc/nginx/conf.d/bridge.conf", stdin=beside_others)
    host.run("systemctl restart nginx")
    is_reached()
    host.run("rm /etc/nginx/conf.d/bridge.conf; systemctl stop nginx")
    assert "test is successful" in host.run(nginx)
    is_reached()
