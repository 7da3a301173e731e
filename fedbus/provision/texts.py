"""The texts in a kit: settings that its owner changes, and the one command to run."""

from __future__ import annotations

from fedbus.provision.federation_file import BrokerPart
from fedbus.trust.subjects import Role, Subject

VHOST = "fedbus"
POLICY = "policy.toml"
_SETTINGS = """\
# Settings of {subject}. Yours to change, and signed by nobody.
# Every key with its default: services/{folder}/{table}.toml
[{table}]
{name}broker_url = "amqps://{address}/{vhost}"
"""
_SITE_NAME = """\
site_name = "{name}"
# The folder with this site's data.
# site_data = "/srv/fedbus/data"
"""
_POLICY = """\
# What may run at {name} and what may leave it: yours alone, signed by nobody, read before every job and at the door.
# Every key must be there; what is not limited says "any". As it stands no task may run: list yours below.
format = 1

[jobs]
submitters = "any"                    # or [{{name = "alice", fingerprint = "3f2a-91bc-..."}}]
kinds = ["training", "evaluate", "data-check"]
min_contributors = 1
min_batch_size = 1
min_examples = 1
max_steps_per_update = "any"
max_steps_per_day = "any"

[privacy]
filters = []

[hours]
zone = "UTC"
open = ["mon-sun 00:00-24:00"]        # or ["mon-fri 19:00-07:00", "sat,sun 00:00-24:00"]

[out]
bytes_per_day = "any"
metrics = ["*"]
intervals = true
statistics = true
prints = false
local_models = false

# The tasks that may run, each with what a job may set of it. What is not listed stays at its default: with the example
# (take its # away) the job in fedbus's README runs. params = "any" lets a job set everything.
[tasks]
# [tasks.heart_disease]
# data = "any"
# [tasks.heart_disease.params]
# "local.steps" = {{min = 1, max = 500}}
# "local.batch_size" = {{min = 8, max = 256}}
# "local.learning_rate" = {{min = 0.00001, max = 1.0}}
"""
_README = """\
# {title}

    {command}

Run it in this folder, once `{doctor}` has nothing to say. It needs one way
out, TCP to {address}, and no port in.

- `key.pem` is the private key. It was made {made}, has mode 0600, and goes to nobody, not even the
  federation.
- `cert.pem` says who you are to the broker, for 30 days; {renewed}.
- `ca.pem` is whom you believe: this federation's own CA, nobody else.
{more}"""
_MORE = {
    Role.SITE: (
        "- `site.toml` and `policy.toml` are yours. `policy.toml` lets no task run until you list it there.\n"
        "- `DIR` is the folder with your data, outside this one, which tasks are kept from reading: the key is in it.\n"
        "  Written into `site.toml` (`site_data`) it needs no `--data`.\n"
    ),
    Role.SUBMITTER: "- `submitter.toml` is yours: change it as you like.\n",
    Role.AGGREGATOR: "- `crl.pem`, `roster.json`, `renewed/` change when sites come and go: copy them again then.\n",
}
_COMMAND = {
    Role.SITE: "fedbus site --kit . --data DIR",
    Role.SUBMITTER: "fedbus --kit . submit JOB.yaml --watch",
    Role.AGGREGATOR: "fedbus aggregator --kit .",
}
_RENEWED = {
    Role.SITE: "it is renewed by itself while the daemon runs",
    Role.SUBMITTER: "before they are over, ask the federation for your next .zip and unpack it here",
    Role.AGGREGATOR: "`fedbus provision renew` writes the next one",
}
_FOLDER = {Role.SITE: "site", Role.SUBMITTER: "publisher", Role.AGGREGATOR: "aggregator"}


def texts(subject: Subject, broker: BrokerPart, *, made_here: bool) -> dict[str, str]:
    """Name and text of what belongs to a participant's kit besides keys and certificates."""
    table = subject.role.value
    settings = _SETTINGS.format(
        subject=subject,
        folder=_FOLDER[subject.role],
        table=table,
        name=_SITE_NAME.format(name=subject.name) if subject.role is Role.SITE else "",
        address=broker.address,
        vhost=VHOST,
    )
    readme = _README.format(
        title=str(subject).capitalize(),
        command=_COMMAND[subject.role],
        doctor="fedbus doctor --kit ." + (" --data DIR" if subject.role is Role.SITE else ""),
        address=broker.address,
        made="by the federation's operator" if made_here else "by you (`fedbus kit request`)",
        renewed=_RENEWED[subject.role],
        more=_MORE[subject.role],
    )
    policy = {POLICY: policy_text(subject.name)} if subject.role is Role.SITE else {}
    return {"README.md": readme, f"{table}.toml": settings, **policy}


def policy_text(site: str) -> str:
    """The policy of a new kit: whole, and as yet no task may run."""
    return _POLICY.format(name=site)


def broker_readme(broker: BrokerPart, folder: str) -> str:
    """What the broker's operator does with the folder."""
    nodes = f" --nodes {len(broker.places)}" if broker.also else ""
    ports = " and ".join(dict.fromkeys(str(port) for _, port in broker.places))
    ran = "" if broker.version == "3.10" else "\nThese files were written for RabbitMQ 4.x and not run by us.\n"
    return f"""\
# The broker, {broker.address}, RabbitMQ {broker.version}

On this machine, for a try: `fedbus broker start --dir ..{nodes}`

As a service: the files are read in
`{folder}`
(`broker.folder` of federation.yaml); `key.pem` belongs to the user rabbitmq, mode 0600. `RABBITMQ_CONFIG_FILE`,
`RABBITMQ_ADVANCED_CONFIG_FILE` and `RABBITMQ_ENABLED_PLUGINS_FILE` name `rabbitmq.conf`, `advanced.config` and
`enabled_plugins`. Open {ports} to the sites and nothing else.
{ran}
`crl/` is the revocation list: past its 30 days nobody gets in. Every `fedbus provision` command that changes something
writes a new one; copy `crl/` here then (write beside, rename). After a change of `cert.pem` or `ca.pem`:
`rabbitmqctl eval 'rpc:multicall(ssl, clear_pem_cache, []).'`; nothing restarts.
"""
