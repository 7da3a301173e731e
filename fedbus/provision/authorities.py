"""The CA's files: `ca/N.pem` and `ca/N.key` of each generation. Only `fedbus provision` commands need them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from fedbus.errors import TrustError
from fedbus.provision.files import PRIVATE, present, put
from fedbus.trust.authority import Authority
from fedbus.trust.certificates import certificate_pem, key_pem


class Authorities:
    """The generations in a federation's folder `ca`."""

    def __init__(self, folder: Path, federation: str) -> None:
        self._folder = folder
        self._federation = federation
        self._read: dict[int, Authority] = {}

    def __getitem__(self, generation: int) -> Authority:
        """TrustError when a file is missing or does not fit."""
        if generation not in self._read:
            certificate, key = (present(path) for path in self._paths(generation))
            if certificate is None or key is None:
                raise TrustError(
                    f"the CA's certificate or key is missing in {self._folder}: take {generation}.pem and "
                    f"{generation}.key from your backup; a new CA would shut everybody out"
                )
            found = Authority.read(certificate, key)
            if found.federation != self._federation:
                raise TrustError(
                    f"{self._folder} is the CA of federation {found.federation!r}, this is {self._federation!r}: the "
                    "id of a federation never changes; choose another folder with --to"
                )
            self._read[generation] = found
        return self._read[generation]

    def make(self, generation: int, *, at: datetime) -> Authority:
        """Make a generation, or take the one whose files a command that was killed has left."""
        certificate_path, key_path = self._paths(generation)
        if not (certificate_path.exists() and key_path.exists()):
            made = Authority.new(self._federation, generation=generation, at=at)
            put(key_path, key_pem(made.key), mode=PRIVATE)
            put(certificate_path, certificate_pem(made.certificate))
        return self[generation]

    def bundle(self, generations: tuple[int, ...]) -> bytes:
        """`ca.pem` of every kit: the CA certificates that are trusted."""
        return b"".join(certificate_pem(self[generation].certificate) for generation in generations)

    def _paths(self, generation: int) -> tuple[Path, Path]:
        return self._folder / f"{generation}.pem", self._folder / f"{generation}.key"
