"""`moorage trust`: make the clients of this machine trust the local CA, and undo it.

Two places: the system's store, which most programs read, and the `certifi` bundle of one Python environment, for
clients that read nothing else: `azure-eventhub` without options is one.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from moorage.cli.target import NoServer, running_server
from moorage.config import default_ca_folder
from moorage.credentials.x509 import read_certificate
from moorage.errors import Invalid, MoorageError, Unavailable

Command = tuple[str, ...]

ANCHORS = Path("/usr/local/share/ca-certificates")  # where Debian looks for certificates of the machine's own
KEYCHAIN = "/Library/Keychains/System.keychain"
_BLOCK = re.compile(rb"\n# >>> moorage local CA [^\n]*>>>\n.*?\n# <<< moorage local CA <<<\n", re.DOTALL)


class NotPermitted(MoorageError):
    """This user may not do it; the message has the commands that do."""


def find_ca_file(data: Path | None = None) -> Path:
    """The certificate of the CA that the running server uses, else of the user's. Raises Unavailable, NoServer."""
    try:
        named = running_server(data).env.get("MOORAGE_CA_FILE")
    except NoServer:
        if data is not None:
            raise
        named = None
    file = Path(named) if named else default_ca_folder() / "ca.pem"
    if not file.exists():
        raise Unavailable(f"there is no CA yet ({file}): the first start makes it: moorage up")
    return file


# --- the certifi bundle of one Python environment ----------------------------------------------------------


def certifi_bundle(python: Path) -> Path:
    """The file that `certifi` names in the environment of that interpreter. Raises Invalid."""
    try:
        asked = subprocess.run(
            [str(python), "-c", "import certifi; print(certifi.where())"],
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Invalid("--python", f"{python} cannot be run: {error}") from None
    if asked.returncode != 0 or not asked.stdout.strip():
        why = asked.stderr.strip().rpartition("\n")[2]
        raise Invalid("--python", f"{python} does not say where its certifi bundle is: {why or 'no answer'}")
    return Path(asked.stdout.strip().splitlines()[-1])


def with_ca(bundle: bytes, ca: bytes, sha256: str) -> bytes:
    """`bundle` with the CA in a marked block at its end; an older block of ours is replaced."""
    block = b"\n# >>> moorage local CA %s >>>\n%s\n# <<< moorage local CA <<<\n" % (
        sha256.encode(),
        ca.strip(),
    )
    return without_ca(bundle) + block


def without_ca(bundle: bytes) -> bytes:
    """`bundle` as it was, to the byte, before the block was added."""
    return _BLOCK.sub(b"", bundle)


def change_bundle(bundle: Path, ca_file: Path, *, remove: bool) -> bool:
    """Whether something had to be changed. Raises NotPermitted, Invalid."""
    if bundle.parent.name != "certifi" or bundle.is_symlink():
        why = f"its certifi reads a bundle that others share, {bundle.resolve()}; try without --python"
        raise Invalid("--python", why)
    before = bundle.read_bytes()
    if remove:
        after = without_ca(before)
    else:
        ca = ca_file.read_bytes()
        after = with_ca(before, ca, read_certificate(ca).sha256)
    if after == before:
        return False
    try:
        _replace(bundle, after)
    except PermissionError:
        raise NotPermitted(f"{bundle} belongs to somebody else; run this as the user who owns it") from None
    return True


def _replace(file: Path, content: bytes) -> None:
    """Whole or not at all. A new file in its place: installers share one copy among environments by hard links."""
    unfinished = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        unfinished.write_bytes(content)
        shutil.copymode(file, unfinished)
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)


# --- the system's store ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SystemStore:
    """How one kind of system takes a certificate in, and forgets it. Both are safe to repeat."""

    name: str
    add: tuple[Command, ...]
    remove: tuple[Command, ...]


def system_store(ca_file: Path) -> SystemStore:
    """Raises Unavailable on a system that we do not know."""
    ca = str(ca_file.resolve())
    if sys.platform == "darwin":
        add = ("security", "add-trusted-cert", "-d", "-r", "trustRoot", "-k", KEYCHAIN, ca)
        return SystemStore("the system keychain", (add,), (("security", "remove-trusted-cert", "-d", ca),))
    if sys.platform == "win32":
        sha1 = read_certificate(ca_file.read_bytes()).sha1
        return SystemStore(
            "the machine's Root store",
            (("certutil", "-addstore", "-f", "Root", ca),),
            (("certutil", "-delstore", "Root", sha1),),
        )
    if shutil.which("update-ca-certificates", path=_system_path()):
        anchor = str(ANCHORS / "moorage-local-ca.crt")
        return SystemStore(
            "/etc/ssl/certs",
            (("install", "-D", "-m", "644", ca, anchor), ("update-ca-certificates",)),
            (("rm", "-f", anchor), ("update-ca-certificates", "--fresh")),
        )
    if shutil.which("trust", path=_system_path()):
        return SystemStore(
            "the p11-kit trust store",
            (("trust", "anchor", "--store", ca),),
            (("trust", "anchor", "--remove", ca),),
        )
    raise Unavailable(
        f"neither update-ca-certificates nor trust is here: add {ca} to your system's store by hand, or "
        'tell each client where it is: eval "$(moorage env)"'
    )


def change_system(commands: Sequence[Command]) -> None:
    """Run them. Raises NotPermitted with what to type, Unavailable when one fails."""
    if not may_change_system():
        typed = " && ".join(f"sudo {shlex.join(command)}" for command in commands)
        if sys.platform == "win32":
            typed = "as administrator: " + " && ".join(
                subprocess.list2cmdline(command) for command in commands
            )
        raise NotPermitted(f"the system's store needs more rights; run\n  {typed}")
    for command in commands:
        done = subprocess.run(
            command, capture_output=True, text=True, env=os.environ | {"PATH": _system_path()}
        )
        if done.returncode != 0:
            why = (done.stderr or done.stdout).strip()
            raise Unavailable(f"{shlex.join(command)} ended with {done.returncode}: {why}")


def may_change_system() -> bool:
    if sys.platform == "win32":
        import ctypes

        return bool(ctypes.windll.shell32.IsUserAnAdmin())
    return os.geteuid() == 0


def _system_path() -> str:
    """Ordinary users often lack the folders of the system's own commands."""
    return os.pathsep.join(filter(None, (os.environ.get("PATH"), "/usr/sbin", "/sbin", "/usr/bin", "/bin")))


@click.command()
@click.option(
    "--python",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Only the certifi bundle of the Python environment with this interpreter.",
)
@click.option("--remove", is_flag=True, help="Undo it.")
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@click.option(
    "--ca",
    "ca_folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of the CA; without it that of the running server, else yours.",
)
def trust(python: Path | None, remove: bool, dry_run: bool, ca_folder: Path | None) -> None:
    """Make clients on this machine trust the local CA: all that read the system's store, or one Python environment.

    Clients that are told where the CA is, as by eval "$(moorage env)", need neither.
    """
    ca_file = ca_folder / "ca.pem" if ca_folder is not None else find_ca_file()
    if python is not None:
        _one_environment(python, ca_file, remove, dry_run)
    else:
        _system(ca_file, remove, dry_run)


def _one_environment(python: Path, ca_file: Path, remove: bool, dry_run: bool) -> None:
    bundle = certifi_bundle(python)
    if dry_run:
        click.echo(f"Would {'take the local CA out of' if remove else f'add {ca_file} to'} {bundle}")
        return
    changed = change_bundle(bundle, ca_file, remove=remove)
    said = {
        (False, True): f"Added {ca_file} to {bundle}.",
        (False, False): f"{bundle} holds {ca_file} already.",
        (True, True): f"{bundle} is as it was before.",
        (True, False): f"{bundle} does not hold the local CA.",
    }
    click.echo(said[remove, changed])
    if changed and not remove:
        undo = shlex.join(["moorage", "trust", "--python", str(python), "--remove"])
        click.echo(f"A new version of certifi forgets it. To undo: {undo}")


def _system(ca_file: Path, remove: bool, dry_run: bool) -> None:
    store = system_store(ca_file)
    commands = store.remove if remove else store.add
    if dry_run:
        click.echo("\n".join(shlex.join(command) for command in commands))
        return
    change_system(commands)
    if remove:
        click.echo(f"{store.name} does not hold the local CA any more.")
    else:
        click.echo(f"{store.name} now trusts {ca_file}. To undo: moorage trust --remove")
