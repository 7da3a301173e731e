"""Keys, requests and certificates as values: P-256 throughout, names to subjects and back, fingerprints.

    subject    O = federation, OU = role, CN = login, serialNumber = the site's number
    leaf       SAN DNS, EKU clientAuth (broker: serverAuth), 30 days, not before five minutes ago

What may not be here: files, and the CA's key (`authority`). RFC 5280 for certificates, RFC 2986 for requests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedbus.errors import TrustError
from fedbus.trust.subjects import Role, Subject

PrivateKey = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey
Certificate = x509.Certificate
SIGNATURE = ec.ECDSA(hashes.SHA256())
# A leaf has about 700 bytes; what is longer is none of ours and is not parsed.
MAX_DER_BYTES = 4096
MAX_PEM_BYTES = 64 * 1024
_FIELDS = {
    "federation": NameOID.ORGANIZATION_NAME,
    "role": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "name": NameOID.COMMON_NAME,
    "number": NameOID.SERIAL_NUMBER,
}
# All that cryptography raises for bytes that are no certificate, request, key or list.
PARSE_ERRORS = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


def new_key() -> PrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: PrivateKey) -> bytes:
    """PKCS8 without a password: its file is 0600."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read_key(pem: bytes, *, what: str = "the key") -> PrivateKey:
    """A private key from PEM, PKCS8 or `EC PRIVATE KEY`. TrustError when it is no P-256 key, or has a password."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError as exc:
        raise TrustError(f"{what} is protected by a password: fedbus reads keys without one, mode 0600") from exc
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise TrustError(f"{what} is no private key in PEM") from exc
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise TrustError(f"{what} is no P-256 key, which is what fedbus uses: openssl ecparam -name prime256v1 -genkey")
    return key


def public_pem(key: PublicKey) -> str:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def read_public(pem: str) -> PublicKey:
    """A public key from PEM. TrustError when it is no P-256 key."""
    try:
        return _p256(serialization.load_pem_public_key(pem.encode()), "the public key")
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise TrustError("this is no public key in PEM") from exc


def fingerprint(key: PublicKey) -> str:
    """What two people compare over the phone: SHA-256 of the public key (SPKI), 16 hex digits in groups of four."""
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    digits = hashlib.sha256(spki).hexdigest()[:16]
    return "-".join(digits[i : i + 4] for i in range(0, 16, 4))


def name_of(subject: Subject) -> x509.Name:
    """The distinguished name of a subject."""
    values = {"federation": subject.federation, "role": subject.role.value, "name": subject.name}
    if subject.number is not None:
        values["number"] = str(subject.number)
    return x509.Name([x509.NameAttribute(_FIELDS[key], value) for key, value in values.items()])


def subject_of(certificate: x509.Certificate) -> Subject:
    """Whom a certificate names. TrustError when its name is not of the form that fedbus issues."""
    found: dict[str, str] = {}
    for attribute in certificate.subject:
        key = next((key for key, oid in _FIELDS.items() if oid == attribute.oid), None)
        if key is None or key in found or not isinstance(attribute.value, str):
            raise TrustError(f"certificate {_shown(certificate)} names more than fedbus issues")
        found[key] = attribute.value
    number = found.get("number")
    try:
        if number is not None and (not number.isascii() or str(int(number)) != number):
            raise ValueError(f"number {number[:20]!r}")
        return Subject(
            federation=found["federation"],
            name=found["name"],
            role=Role(found["role"]),
            number=None if number is None else int(number),
        )
    except (KeyError, ValueError) as exc:
        raise TrustError(f"certificate {_shown(certificate)} does not name a participant of a federation") from exc


def request_pem(key: PrivateKey, *, name: str, role: Role) -> bytes:
    """A certificate request (PEM) for a login name; the federation and a site's number are the signer's to add."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role.value),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def read_request(pem: bytes) -> tuple[str, Role, PublicKey]:
    """Login name, role and public key of a request whose signature fits. TrustError otherwise."""
    if len(pem) > MAX_PEM_BYTES:
        raise TrustError(f"the request has {len(pem):,} bytes, a real one has less than a thousand")
    try:
        request = x509.load_pem_x509_csr(pem)
        key = request.public_key()
        fits = request.is_signature_valid
        name, role = (_only(request.subject, oid) for oid in (NameOID.COMMON_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME))
    except PARSE_ERRORS as exc:
        raise TrustError("this is no certificate request in PEM, subject /OU=site/CN=NAME") from exc
    if not fits:
        raise TrustError("the request is not signed by its own key: ask for it again")
    return name, _role(role), _p256(key, "the request's key")


def read_certificate(der: bytes) -> x509.Certificate:
    """One certificate from DER, with a P-256 key. TrustError otherwise."""
    if len(der) > MAX_DER_BYTES:
        raise TrustError(f"a certificate of {len(der):,} bytes; those of fedbus have at most {MAX_DER_BYTES:,}")
    try:
        certificate = x509.load_der_x509_certificate(der)
        _p256(certificate.public_key(), "the certificate's key")
        _ = certificate.subject, certificate.issuer, certificate.extensions
    except PARSE_ERRORS as exc:
        raise TrustError("these bytes are no certificate") from exc
    return certificate


def read_certificates(pem: bytes, *, what: str) -> list[x509.Certificate]:
    """All certificates of a PEM file, at least one. TrustError otherwise."""
    if len(pem) > MAX_PEM_BYTES:
        raise TrustError(f"{what} has {len(pem):,} bytes, expected at most {MAX_PEM_BYTES:,}")
    try:
        found = x509.load_pem_x509_certificates(pem)
        for certificate in found:
            _p256(certificate.public_key(), what)
    except PARSE_ERRORS as exc:
        raise TrustError(f"{what} holds no certificate in PEM") from exc
    return found


def certificate_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def certificate_der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def public_key(certificate: x509.Certificate) -> PublicKey:
    """The P-256 key of a certificate. TrustError for any other."""
    return _p256(certificate.public_key(), "the certificate's key")


def issuer_of(certificate: x509.Certificate, authorities: Sequence[x509.Certificate]) -> x509.Certificate | None:
    """The authority whose key signed this certificate; None when none of them did, or it is no CA's certificate."""
    for authority in authorities:
        if not is_authority(authority):
            continue
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            continue
        return authority
    return None


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether a certificate says that its key may issue others: a participant's, issued by the CA, does not."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (*PARSE_ERRORS, x509.ExtensionNotFound):
        return False


def check_use(certificate: x509.Certificate, role: Role) -> None:
    """TrustError when a leaf's extensions do not fit its role: a CA, or the wrong side of TLS."""
    wanted = ExtendedKeyUsageOID.SERVER_AUTH if role is Role.BROKER else ExtendedKeyUsageOID.CLIENT_AUTH
    try:
        is_ca = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        uses = list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except (*PARSE_ERRORS, x509.ExtensionNotFound) as exc:
        raise TrustError(f"certificate {_shown(certificate)} does not say what it is for") from exc
    if is_ca or uses != [wanted]:
        raise TrustError(f"certificate {_shown(certificate)} is not made for the role {role}")


def check_dates(certificate: x509.Certificate, at: datetime) -> None:
    """TrustError when the certificate is not valid at this time, which has a time zone."""
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if at > end:
        raise TrustError(
            f"the certificate of {_shown(certificate)} expired on {end:%Y-%m-%d %H:%M} UTC (it is {at:%Y-%m-%d %H:%M} "
            "here): ask the federation for a renewed one (`fedbus provision renew`), or set this machine's clock"
        )
    if at < start:
        raise TrustError(
            f"the certificate of {_shown(certificate)} is not valid before {start:%Y-%m-%d %H:%M} UTC (it is "
            f"{at:%Y-%m-%d %H:%M} here): set this machine's clock"
        )


def _shown(certificate: x509.Certificate) -> str:
    return repr(certificate.subject.rfc4514_string()[:120])


def _only(name: x509.Name, oid: x509.ObjectIdentifier) -> str:
    found = name.get_attributes_for_oid(oid)
    if len(found) != 1 or not isinstance(found[0].value, str):
        raise ValueError(f"expected one {oid._name}, found {len(found)}")
    return found[0].value


def _role(text: str) -> Role:
    try:
        return Role(text)
    except ValueError as exc:
        raise TrustError(f"the request is for role {text[:40]!r}, expected one of {', '.join(Role)}") from exc


def _p256(key: object, what: str) -> PublicKey:
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise TrustError(f"{what} is no P-256 key, which is what fedbus uses")
    return key
