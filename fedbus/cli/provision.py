"""`fedbus provision`: a federation out of one file, and what changes in it. `fedbus kit`: a participant's side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from datetime import datetime

    from fedbus.provision.federation import Change, FederationFolder
    from fedbus.provision.register import Member
    from fedbus.trust.subjects import Role as RoleOf

provision_app = typer.Typer(
    no_args_is_help=True,
    help="Make a federation out of FILE.yaml: CA, certificates, the broker's files, a kit per participant."
    " `fedbus provision FILE.yaml` is short for `fedbus provision make FILE.yaml`.",
    epilog="Every command that changes something makes the revocation list good for another 30 days.",
)
kit_app = typer.Typer(
    no_args_is_help=True, help="The kit of a participant: ask for a certificate, unpack what comes back."
)
MAKE = "make"

Name = Annotated[str, typer.Argument(help="Name of a participant: a-z, 0-9, '-'.")]
Role = Annotated[str, typer.Option(metavar="ROLE", help="site or submitter.")]
Dir = Annotated[
    Path | None,
    typer.Option("--dir", metavar="DIR", help="Folder of the federation.", show_default="here, or the only one here"),
]
WithKeys = Annotated[
    bool,
    typer.Option("--with-keys", help="Make participants' private keys here too: then each kit is a secret."),
]


@provision_app.command(MAKE)
def make(
    file: Annotated[Path, typer.Argument(metavar="FILE.yaml", help="Names the federation and who takes part.")],
    directory: Annotated[
        Path | None,
        typer.Option("--dir", metavar="DIR", help="Folder to make.", show_default="its id, beside FILE.yaml"),
    ] = None,
    with_keys: WithKeys = False,
    to: Annotated[Path | None, typer.Option("--to", hidden=True)] = None,
) -> None:
    """Make the folder of a federation, or what is new in FILE.yaml; what is there stays to the byte."""
    import time

    from fedbus.provision.federation import FederationFolder
    from fedbus.provision.federation_file import FederationFile

    parsed = FederationFile.load(file)
    folder = FederationFolder(directory or to or file.parent / parsed.federation)
    fresh = not (folder.base / "ca" / "register.json").exists()
    begun = time.monotonic()
    change = folder.provision(parsed, now=_now(), with_keys=with_keys)
    made = f" (made in {time.monotonic() - begun:.1f} s)" if fresh else ""
    typer.echo(f"federation       {parsed.federation}, CA {_authorities(folder)}{made}")
    typer.echo(f"broker           {folder.base / 'broker'}")
    typer.echo(f"aggregator       {folder.base / 'aggregator'}")
    _say_kits(folder, change)
    if not fresh:
        _tell(folder, change)
    _say_left_out(change, parsed.sites, parsed.submitters)


@provision_app.command()
def add(name: Name, role: Role = "site", directory: Dir = None, with_keys: WithKeys = False) -> None:
    """Enrol one more, or again who was revoked. A running broker lets it in once its request is signed."""
    folder = _folder(directory)
    change = folder.add(name, _role(role), now=_now(), with_keys=with_keys)
    _tell(folder, change)
    member = change.register.members[name]
    if member.key is None:
        typer.echo(f"{name} is enrolled. At {name}: `fedbus {_request_words(name, role)}`; then sign what comes.")
    else:
        _say_signed(folder, change, member)


@provision_app.command()
def sign(
    request: Annotated[Path, typer.Argument(metavar="NAME.csr", help="The request that a participant has sent.")],
    fingerprint: Annotated[
        str | None,
        typer.Option(metavar="XXXX-XXXX-XXXX-XXXX", help="What they read to you over the phone.", show_default="asked"),
    ] = None,
    directory: Dir = None,
) -> None:
    """Issue a certificate for a request, once its fingerprint is what the participant reads to you; pack the kit."""
    from fedbus.errors import SettingsError

    try:
        with request.open("rb") as file:
            pem = file.read(1 << 20)
    except OSError as exc:
        raise SettingsError(f"cannot read {request}: {exc.strerror}") from exc

    def confirmed(member: Member, found: str) -> bool:
        said = fingerprint or typer.prompt(f"Fingerprint that {member.name} reads to you, from its own screen")
        return _digits(said) == _digits(found)

    folder = _folder(directory)
    change, member = folder.sign(pem, confirmed=confirmed, now=_now())
    _tell(folder, change)
    _say_signed(folder, change, member)


@provision_app.command()
def revoke(name: Name, directory: Dir = None) -> None:
    """Put out, at once and for good: the list first, then its connections and its login. Nobody else is disturbed."""
    import time

    folder = _folder(directory)
    begun = time.monotonic()
    change = folder.revoke(name, now=_now())
    told = _tell(folder, change)
    member = change.register.members[name]
    typer.echo(
        f"{name} is revoked{f' after {time.monotonic() - begun:.1f} s' if told else ' in this folder'}: "
        f"{len(member.certificates)} certificate(s) on the list."
    )
    if member.revoked is not None:
        typer.echo(f"With a new key it may come back: `fedbus provision add {name}`, then `sign`.")


@provision_app.command()
def renew(
    name: Annotated[
        str | None, typer.Argument(help="One participant.", show_default="all past half of their 30 days")
    ] = None,
    directory: Dir = None,
) -> None:
    """New certificates of the same keys. The aggregator hands them to sites that are connected; nobody reconnects."""
    folder = _folder(directory)
    change = folder.renew(name, now=_now())
    _tell(folder, change)
    typer.echo(f"renewed          {', '.join(change.renewed) or 'none was due'}; the revocation list: 30 days")


@provision_app.command("rotate-ca")
def rotate_ca(
    finish: Annotated[bool, typer.Option("--finish", help="Believe the new CA alone.")] = False, directory: Dir = None
) -> None:
    """Replace the CA in two steps: first everybody believes both, then, once all have new certificates, the new one."""
    folder = _folder(directory)
    change = folder.rotate_finish(now=_now()) if finish else folder.rotate_start(now=_now())
    _tell(folder, change)
    typer.echo(f"federation       {change.register.federation}, CA {_authorities(folder)}")
    typer.echo(f"reissued         {', '.join(change.renewed) or 'none'}")
    if finish:
        typer.echo("The old CA is believed no more. Who has missed the change unpacks its NAME.zip by hand.")
    else:
        typer.echo("Sites take theirs over while they are connected, submitters unpack NAME.zip by hand.")
        typer.echo("Then: `fedbus provision rotate-ca --finish`.")


# ------------------------------------------------------------------ a participant's side


@kit_app.command("request")
def request_kit(
    name: Name,
    role: Role = "site",
    kit: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the kit.", show_default="./NAME")] = None,
) -> None:
    """Make a private key, which stays here, and a request for its certificate."""
    from fedbus.provision.participant import request

    made = request(kit or Path(name), name, _role(role))
    typer.echo(f"key              {made.file.parent / 'key.pem'}  (stays here, mode 0600)")
    typer.echo(f"request          {made.file}  (send this)")
    typer.echo(f"fingerprint      {made.fingerprint}  (read it to the federation over the phone)")


@kit_app.command("unpack")
def unpack_kit(
    file: Annotated[Path, typer.Argument(metavar="NAME.zip", help="What the federation has sent.")],
    kit: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the kit.", show_default="./NAME")] = None,
) -> None:
    """Check a packed kit and put it beside the key; settings and policy that are there stay as they are."""
    from fedbus.provision.participant import authority_fingerprints, unpack

    folder = kit or Path(file.stem)
    identity = unpack(file, folder)
    typer.echo(f"kit              {folder}: {identity.subject}, until {identity.expires:%Y-%m-%d}")
    typer.echo(f"CA               {', '.join(authority_fingerprints(folder))}  (the federation reads the same to you)")
    typer.echo(f"next             {folder / 'README.md'}")


# ------------------------------------------------------------------ words


def _now() -> datetime:
    from datetime import UTC, datetime

    return datetime.now(UTC)


def _folder(given: Path | None) -> FederationFolder:
    from fedbus.provision.federation import FederationFolder

    return FederationFolder.found(given)


def _role(text: str) -> RoleOf:
    from fedbus.trust.subjects import Role

    if text not in (Role.SITE, Role.SUBMITTER):
        raise typer.BadParameter(f"expected site or submitter, got {text!r}", param_hint="--role")
    return Role(text)


def _authorities(folder: FederationFolder) -> str:
    from fedbus.provision.participant import authority_fingerprints

    return ", ".join(authority_fingerprints(folder.base / "aggregator"))


def _digits(text: str) -> str:
    """A fingerprint as somebody has typed it: groups, spaces and case do not count."""
    return "".join(text.lower().split()).replace("-", "")


def _request_words(name: str, role: str) -> str:
    return f"kit request {name}" + ("" if role == "site" else f" --role {role}")


def _say_kits(folder: FederationFolder, change: Change) -> None:
    from fedbus.provision.federation import kits, waiting

    for path in kits(folder, change.register):
        typer.echo(f"kit              {path}")
    for member in waiting(change.register):
        typer.echo(
            f"waits            {member.name}: there `fedbus {_request_words(member.name, member.role)}`, then sign"
        )


def _say_left_out(change: Change, *given: tuple[str, ...]) -> None:
    named = {name for names in given for name in names} | {"broker", "aggregator"}
    for member in change.register.members.values():
        if member.revoked is not None and member.name in named:
            typer.echo(f"out              {member.name}: revoked, comes back with `fedbus provision add {member.name}`")
        elif member.revoked is None and member.name not in named:
            typer.echo(f"not in the file  {member.name}: stays enrolled until `fedbus provision revoke {member.name}`")


def _say_signed(folder: FederationFolder, change: Change, member: Member) -> None:
    from fedbus.provision.contents import packed_kit

    typer.echo(f"signed           {member.subject(change.register.federation)}")
    typer.echo(f"send             {packed_kit(folder.base, member)}  (there: `fedbus kit unpack {member.name}.zip`)")
    typer.echo(f"CA               {_authorities(folder)}  (they see the same when they unpack)")


def _tell(folder: FederationFolder, change: Change) -> bool:
    """Whether a running broker here was told."""
    from fedbus.provision.live import by_hand, commands, reached, tell

    if not commands(folder, change):
        return False
    ctl = reached(folder, change)
    if ctl is not None:
        tell(folder, change, ctl)
        return True
    typer.echo("No broker of this folder runs here. One that runs elsewhere is told by hand:", err=True)
    for line in by_hand(folder, change):
        typer.echo(f"  {line}", err=True)
    return False
