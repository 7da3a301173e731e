"""`fedbus broker`: a private RabbitMQ node on this machine, and the definitions for one that runs elsewhere."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fedbus.broker.cluster import PrivateCluster
    from fedbus.broker.node import PrivateNode
    from fedbus.broker.record import NodeStatus

broker_app = typer.Typer(
    no_args_is_help=True,
    help="A private RabbitMQ node: loopback only, own ports, one login per site, no system service.",
)


class Output(StrEnum):
    TEXT = "text"
    JSON = "json"


Folder = Annotated[
    Path | None,
    typer.Option(
        "--dir",
        help="Folder of the node, or of a federation from `fedbus provision`.",
        show_default="$FEDBUS_HOME/broker, ~/.fedbus/broker",
    ),
]
Federation = Annotated[
    Path | None,
    typer.Option("--from", metavar="DIR", hidden=True),
]
Sites = Annotated[
    list[str] | None, typer.Option("--site", metavar="NAME", help="A site that gets a login; give it once per site.")
]


@broker_app.command()
def start(
    folder: Folder = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            help="Port on 127.0.0.1.",
            show_default="that of the last start, or of the federation, or free",
        ),
    ] = None,
    site: Sites = None,
    nodes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How many nodes, as one cluster: with 3 any one of them may be away.",
            show_default="as at the last start, 1",
        ),
    ] = None,
    provisioned: Federation = None,
) -> None:
    """Start the node and write one login file per user. It runs until `fedbus broker stop`.

    Of a cluster the nodes that do not run are started.
    """
    folder, provisioned = _which(folder, provisioned)
    node = _node(folder, provisioned, nodes=nodes)
    typer.echo(f"Starting RabbitMQ in {node.base} ...", err=True)
    node.start(sites=site or [], provisioned=provisioned, port=port)
    status = node.status()
    places = ", ".join(f"127.0.0.1:{each.port} (pid {each.pid})" for each in status.members or (status,))
    if status.tls:
        typer.echo(f"RabbitMQ runs on {places}, TLS alone. Certificates that may log in: {', '.join(status.logins)}.")
        typer.echo(
            "Next: `fedbus aggregator --kit DIR`, per site `fedbus site --kit DIR`, `FEDBUS_KIT=DIR fedbus submit`"
        )
        return
    typer.echo(f"RabbitMQ runs on {places}. Logins:")
    for name in status.logins:
        typer.echo(f"  {name:<16} {node.logins.path(name)}")
    _say_next(status, folder)


@broker_app.command()
def stop(
    folder: Folder = None,
    number: Annotated[
        int | None, typer.Option("--node", metavar="N", help="Of a cluster only this node, counted from 1.")
    ] = None,
    provisioned: Federation = None,
) -> None:
    """Stop the node, whoever started it. Its data and logins stay for the next start."""
    node = _node(folder, provisioned)
    if number is not None:
        stopped = _cluster(node).stop_node(number)
        typer.echo(f"Node {number} of {node.base} {'is stopped' if stopped else 'did not run'}.")
        return
    typer.echo(f"RabbitMQ in {node.base} {'is stopped' if node.stop() else 'did not run'}.")


@broker_app.command()
def status(
    folder: Folder = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="How to print.")] = Output.TEXT,
    provisioned: Federation = None,
) -> None:
    """Say whether the node runs, where, and which logins it has. Exit code 3 when it, or all of a cluster, is down."""
    import json
    from dataclasses import asdict

    node = _node(folder, provisioned)
    found = node.status()
    alarms = node.alarms() if found.running else ()
    if output is Output.JSON:
        typer.echo(json.dumps(asdict(found) | {"alarms": alarms}, default=str))
    else:
        where = _where(found) if not found.members else f"is a cluster of {len(found.members)} nodes"
        typer.echo(f"RabbitMQ in {found.base} {where}; logins: {', '.join(found.logins) or 'none'}")
        apart = _cluster(node).apart() if found.members and found.running else ()
        behind = _cluster(node).out_of_step() if found.members and found.running else ()
        for number, member in enumerate(found.members, 1):
            cut = ", apart from the majority: it serves nobody until it sees one" if number in apart else ""
            cut += ", out of step with the others: `fedbus broker start` starts it again" if number in behind else ""
            typer.echo(f"  node {number} {_where(member)}{cut}")
    for alarm in alarms:
        typer.echo(f"It takes no messages: {alarm}.")
    if not found.running:
        raise typer.Exit(3)


@broker_app.command()
def add_site(
    name: Annotated[str, typer.Argument(help="Name of the site: a-z, 0-9, '-'.")], folder: Folder = None
) -> None:
    """Enrol one more site on the running node and write its login file."""
    typer.echo(f"{name:<16} {_node(folder).add_site(name)}")


@broker_app.command()
def remove_site(name: Annotated[str, typer.Argument(help="Name of the site.")], folder: Folder = None) -> None:
    """Take a site's login away: its password opens nothing from now on, its connections are closed at once.

    Its queue goes with what waits in it. Nobody else is disturbed. `add-site` enrols it again, with another password.
    """
    _node(folder).remove_site(name)
    typer.echo(f"{name} is removed: its login, its connections and its queue.")


@broker_app.command()
def rotate(
    name: Annotated[str, typer.Argument(help="A login: a site's name, aggregator or submitter.")], folder: Folder = None
) -> None:
    """Give a login another password: the old one opens nothing from now on, its connections are closed at once.

    Its queue and what waits in it stay. Nobody else is disturbed. Restart the login's daemon with the new URL.
    """
    path = _node(folder).rotate(name)
    typer.echo(f"{name:<16} {path}")
    typer.echo(f"The old password of {name} opens nothing any more: restart its daemon with the URL in this file.")


@broker_app.command()
def definitions(
    folder: Annotated[Path, typer.Argument(help="Folder to write to; passwords already there are kept.")],
    address: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where the daemons reach the broker.")],
    site: Annotated[
        list[str] | None,
        typer.Option(
            "--site", metavar="NAME", help="Once per site: all of them. One left out loses its login. None: as before."
        ),
    ] = None,
    rotate: Annotated[
        list[str] | None, typer.Option("--rotate", metavar="NAME", help="A login that gets another password.")
    ] = None,
) -> None:
    """Write definitions.json and logins for a RabbitMQ that runs elsewhere: in compose, Kubernetes or a data centre.

    Load it with `load_definitions` in rabbitmq.conf or `rabbitmqctl import_definitions`. Each `env/NAME.env` holds the
    FEDBUS_BROKER_URL of one login: give every machine only its own.
    """
    from fedbus.broker.definitions_folder import write_folder

    written = write_folder(folder.absolute(), site or [], address=address, renew=rotate or [])
    typer.echo(f"definitions      {written.definitions}")
    for name, path in written.env.items():
        typer.echo(f"{name:<16} {path}")
    for name in written.left_out:
        typer.echo(f"{name:<16} left out: its login is deleted here")
    if commands := written.at_the_broker():
        typer.echo("A broker that runs already still knows what was: at the broker, run\n  " + "\n  ".join(commands))


def _which(folder: Path | None, provisioned: Path | None) -> tuple[Path | None, Path | None]:
    """The folder of the node, or that of a federation: whose broker is provisioned is seen by its definitions."""
    if folder is not None and (folder / "broker" / "definitions.json").is_file():
        return None, folder
    return folder, provisioned


def _node(
    folder: Path | None, provisioned: Path | None = None, *, nodes: int | None = None
) -> PrivateNode | PrivateCluster:
    from fedbus.broker.cluster import private_broker
    from fedbus.broker.provisioned import node_folder
    from fedbus.runtime.settings import default_home

    folder, provisioned = _which(folder, provisioned)
    base = folder or (node_folder(provisioned) if provisioned else default_home() / "broker")
    return private_broker(base, nodes=nodes)


def _cluster(node: PrivateNode | PrivateCluster) -> PrivateCluster:
    from fedbus.broker.cluster import PrivateCluster

    if not isinstance(node, PrivateCluster):
        raise typer.BadParameter(f"{node.base} holds one node: `fedbus broker stop` stops it", param_hint="--node")
    return node


def _where(status: NodeStatus) -> str:
    return f"runs on 127.0.0.1:{status.port} (pid {status.pid})" if status.running else "does not run"


def _say_next(status: NodeStatus, folder: Path | None) -> None:
    sites = [name for name in status.logins if name not in ("aggregator", "submitter")]
    if folder is not None:  # daemons find logins by themselves only in the default folder
        typer.echo(f'Then, for each daemon: export FEDBUS_BROKER_URL="$(cat {status.base}/logins/NAME.url)"')
    typer.echo(
        "Next: `fedbus aggregator`, then per site `fedbus site --name NAME --data DIR`, then `fedbus submit JOB.yaml`."
    )
    if not sites:
        typer.echo("No site has a login yet: `fedbus broker add-site NAME`.")
