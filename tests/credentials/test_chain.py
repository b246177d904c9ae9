"""Chains from a device's leaf: what is found, in which order, and what each certificate in it is told."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from moorage.credentials import chain
from moorage.credentials.chain import (
    MAX_LENGTH,
    MAX_SIGNATURES,
    Chain,
    ChainBuilder,
    Flaw,
    signed_by,
)
from moorage.credentials.x509 import Certificate, read_certificate
from moorage.errors import Invalid
from tests.support.authorities import (
    CA,
    NOW,
    Algorithm,
    Issued,
    certify,
    key,
    microseconds,
    name,
    root,
    usage,
)

ROOT = root("root")
INTERMEDIATE = ROOT.authority("intermediate", number=1)
LEAF = INTERMEDIATE.issue("pump-7", number=2)
NOW_US = microseconds(NOW)
LATER = microseconds(datetime(2030, 1, 1, tzinfo=UTC))  # within the dates of what openssl has made
DAY = timedelta(days=1)


def chains_to(*stored: Issued, sent: Sequence[Issued]) -> list[Chain]:
    """All chains that reach one of `stored`, in the order they are found."""
    builder = ChainBuilder([each.der for each in sent])
    found: list[Chain] = []
    for _ in range(MAX_LENGTH):
        wanted = {
            wanted: [each.certificate for each in stored if each.certificate.subject_key == wanted]
            for wanted in builder.wants
        }
        if not wanted:
            break
        found += builder.advance(wanted)
    assert builder.wants == []
    return found


def test_what_many_devices_send_along_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = root("a root that no other test knows")
    line = fresh.authority("line", number=1)
    checked: list[str] = []

    def counting(child: Certificate, issuer: Certificate) -> bool:
        checked.append(child.subject)
        return signed_by(child, issuer)

    monkeypatch.setattr(chain, "signed_by", counting)
    for number in range(3):
        [found] = chains_to(fresh, sent=[line.issue(f"pump-{number}", number=2), line])
        assert len(found) == 3

    assert checked == ["CN=pump-0", "CN=line", "CN=pump-1", "CN=pump-2"]
    # Another one of the same name is another one.
    impostor = root("a root that no other test knows", number=5)
    assert chains_to(impostor, sent=[line.issue("pump-3", number=2), line]) == []


def made_by_openssl(stem: str) -> Issued:
    """What cryptography will not make: version 1, SHA-1. Its key is not to be had."""
    file = Path(__file__).parent / "openssl" / "chain" / f"{stem}.crt"
    return Issued(read_certificate(file.read_bytes()), key())


def subjects(chain: Chain) -> list[str]:
    return [each.subject.removeprefix("CN=") for each in chain.certificates]


def flaws(chain: Chain, now: int = NOW_US) -> list[Flaw]:
    return [flaw for verdict in chain.judge(now) for flaw in verdict.flaws]


def flaw_of(*stored: Issued, sent: Sequence[Issued]) -> str:
    """The only thing that is wrong with the only chain."""
    (chain,) = chains_to(*stored, sent=sent)
    (flaw,) = flaws(chain)
    assert flaw.remedy
    return flaw.why


# --- What is found ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        [LEAF, INTERMEDIATE, ROOT],
        [LEAF, INTERMEDIATE],
        [LEAF, ROOT, INTERMEDIATE],
        [LEAF, root("a stranger", number=5), INTERMEDIATE, INTERMEDIATE, LEAF],
    ],
    ids=["whole", "without the root", "in another order", "with what does not belong"],
)
def test_a_chain_to_the_root_is_found_in_any_order(sent: list[Issued]) -> None:
    (chain,) = chains_to(ROOT, sent=sent)
    assert subjects(chain) == ["pump-7", "intermediate", "root"]
    assert flaws(chain) == []
    assert [verdict.text for verdict in chain.judge(NOW_US)] == [
        "CN=pump-7, issued by CN=intermediate",
        "CN=intermediate, issued by CN=root",
        "CN=root, the anchor",
    ]


def test_the_nearest_issuer_comes_first() -> None:
    builder = ChainBuilder([LEAF.der, INTERMEDIATE.der])
    assert builder.wants == [INTERMEDIATE.certificate.subject_key]
    (first,) = builder.advance({INTERMEDIATE.certificate.subject_key: [INTERMEDIATE.certificate]})
    assert subjects(first) == ["pump-7", "intermediate"]
    assert builder.wants == [ROOT.certificate.subject_key]
    (second,) = builder.advance({ROOT.certificate.subject_key: [ROOT.certificate]})
    assert subjects(second) == ["pump-7", "intermediate", "root"]
    assert builder.was_sent(INTERMEDIATE.certificate)
    assert not builder.was_sent(ROOT.certificate)


def test_what_is_stored_may_be_left_out() -> None:
    near, far = chains_to(INTERMEDIATE, ROOT, sent=[LEAF])
    assert subjects(near) == ["pump-7", "intermediate"]
    assert subjects(far) == ["pump-7", "intermediate", "root"]


def test_what_is_neither_sent_nor_stored_is_missing() -> None:
    builder = ChainBuilder([LEAF.der])
    assert builder.advance({}) == []
    assert builder.wants == []
    (ended,) = builder.ended
    assert ended.top == LEAF.certificate
    assert ended.top.issuer == "CN=intermediate"


def test_a_namesake_with_another_key_is_turned_away_and_told_of() -> None:
    namesake = root("intermediate", number=7)
    builder = ChainBuilder([LEAF.der, namesake.der])
    assert builder.advance({LEAF.certificate.issuer_key: [namesake.certificate]}) == []
    (told, _) = builder.turned_away  # the stored one and the one sent
    assert "CN=intermediate" in told
    assert "another key" in told


def test_of_two_namesakes_the_one_that_signed_is_taken() -> None:
    namesake = ROOT.authority("intermediate", number=7)
    (chain,) = chains_to(ROOT, sent=[LEAF, namesake, INTERMEDIATE])
    assert chain.certificates[1] == INTERMEDIATE.certificate


def test_cross_signed_certificates_give_a_chain_each() -> None:
    other = root("other root", number=3)
    crossed = other.authority("intermediate", number=1)
    found = chains_to(ROOT, other, sent=[LEAF, INTERMEDIATE, crossed])
    assert [subjects(chain)[-1] for chain in found] == ["root", "other root"]
    assert all(flaws(chain) == [] for chain in found)


def test_a_renewed_authority_is_the_issuer_whichever_is_sent() -> None:
    """Same name, same key, new dates: the stored one counts, the sent one is expired."""
    old = ROOT.authority("intermediate", number=1, end=NOW - DAY)
    (chain,) = chains_to(INTERMEDIATE, sent=[LEAF, old])
    assert flaws(chain) == []
    assert chain.top == INTERMEDIATE.certificate


def test_the_authority_itself_is_no_device_of_its_own() -> None:
    assert chains_to(ROOT, sent=[ROOT]) == []
    assert chains_to(ROOT, sent=[ROOT, ROOT]) == []


def test_a_self_signed_leaf_has_no_issuer() -> None:
    assert chains_to(ROOT, sent=[certify("pump-7", None)]) == []


def test_a_loop_of_two_that_signed_each_other_ends() -> None:
    one, two = certify("one", None, number=3), certify("two", None, number=4)
    first = certify("one", Issued(two.certificate, two.key), number=3, extensions=[(CA, True)])
    second = certify("two", Issued(one.certificate, one.key), number=4, extensions=[(CA, True)])
    leaf = Issued(first.certificate, first.key).issue("pump-7", number=2)
    assert chains_to(ROOT, sent=[leaf, first, second]) == []


def test_a_chain_may_be_ten_certificates_long() -> None:
    line = [ROOT]
    for place in range(1, MAX_LENGTH):
        line.append(line[-1].authority(f"ca-{place}", number=place))
    reached = line[MAX_LENGTH - 2].issue("pump-7", number=20)
    too_deep = line[MAX_LENGTH - 1].issue("pump-8", number=21)
    (chain,) = chains_to(ROOT, sent=[reached, *line[1:-1]])
    assert len(chain) == MAX_LENGTH
    assert flaws(chain) == []
    assert chains_to(ROOT, sent=[too_deep, *line[1:]]) == []


def test_many_namesakes_cost_a_bounded_number_of_signatures() -> None:
    stored = [root("intermediate", number=place).certificate for place in range(3, 10)] * 20
    builder = ChainBuilder([LEAF.der])
    assert builder.advance({LEAF.certificate.issuer_key: [*stored, INTERMEDIATE.certificate]}) == []
    assert len(stored) > MAX_SIGNATURES


def test_names_may_be_spelt_otherwise() -> None:
    """Letter case, blanks and the kind of string do not count [RFC 5280 7.1]."""
    issuer = x509.Name(
        [
            x509.NameAttribute(
                NameOID.COMMON_NAME, " INTER  mediate", _type=x509.name._ASN1Type.PrintableString
            )
        ]
    )
    held = root("inter mediate", number=1)
    leaf = certify("pump-7", held, issuer_name=issuer)
    (chain,) = chains_to(held, sent=[leaf])
    assert flaws(chain) == []


def test_names_that_differ_are_kept_apart() -> None:
    keys = {
        Certificate(certify(each, None).der).subject_key
        for each in (name("a"), name("b"), name("a", "a"), name("a", "b"), x509.Name([]))
    }
    assert len(keys) == 5


# --- What is judged --------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["p256", "rsa", "pss", "ed25519"])
def test_every_kind_of_signature(algorithm: Algorithm) -> None:
    top = root("top", algorithm=algorithm)
    below = top.authority("below", algorithm=algorithm, number=1)
    leaf = below.issue("pump-7", algorithm="p256")
    (chain,) = chains_to(top, sent=[leaf, below])
    assert flaws(chain) == []
    assert not signed_by(leaf.certificate, top.certificate)
    assert not signed_by(leaf.certificate, ROOT.certificate)


def test_a_leaf_may_lack_everything_and_be_odd() -> None:
    """As `usr_cert` makes it: no key usage, an authority key id without a key id; and without any extension."""
    authority_key_id = x509.AuthorityKeyIdentifier(None, [x509.DirectoryName(ROOT.subject)], 7)
    odd = ROOT.issue(
        "pump-7", extensions=[(x509.BasicConstraints(False, None), False), (authority_key_id, False)]
    )
    for leaf in (odd, ROOT.issue("pump-7", extensions=[]), ROOT.authority("pump-7", number=2)):
        (chain,) = chains_to(ROOT, sent=[leaf])
        assert flaws(chain) == []


def test_an_authority_key_id_is_a_hint_only() -> None:
    other = x509.AuthorityKeyIdentifier(b"another", None, None)
    held = root("held", extensions=[(CA, True), (x509.SubjectKeyIdentifier(b"this one"), False)])
    (chain,) = chains_to(held, sent=[held.issue("pump-7", extensions=[(other, False)])])
    assert flaws(chain) == []


@pytest.mark.parametrize(
    ("start", "end", "why"),
    [(-10 * DAY, -DAY, "expired at 2026-05-31"), (DAY, 10 * DAY, "not valid before 2026-06-02")],
    ids=["expired", "not yet valid"],
)
@pytest.mark.parametrize("place", ["leaf", "intermediate", "anchor"])
def test_dates_count_for_every_certificate(place: str, start: timedelta, end: timedelta, why: str) -> None:
    dates = {"start": NOW + start, "end": NOW + end}
    top = root("top", **(dates if place == "anchor" else {}))
    below = top.authority("below", number=1, **(dates if place == "intermediate" else {}))
    leaf = below.issue("pump-7", number=2, **(dates if place == "leaf" else {}))
    (chain,) = chains_to(top, sent=[leaf, below])
    (flaw,) = flaws(chain)
    assert why in flaw.why
    assert flaw.by_date
    place_in_words = {"leaf": "pump-7", "intermediate": "below", "anchor": "top"}[place]
    assert f"CN={place_in_words}" in flaw.remedy


def test_an_issuer_has_to_be_an_authority() -> None:
    for extensions in (
        [],
        [(x509.BasicConstraints(ca=False, path_length=None), True)],
        [(usage(signs=True), True)],
    ):
        plain = ROOT.authority("plain", number=1, extensions=extensions)
        assert "no CA certificate" in flaw_of(ROOT, sent=[plain.issue("pump-7", number=2), plain])


def test_key_usage_has_to_allow_it_where_it_is_there() -> None:
    mute = ROOT.authority("mute", number=1, extensions=[(CA, True), (usage(signs=False), True)])
    assert "keyCertSign" in flaw_of(ROOT, sent=[mute.issue("pump-7", number=2), mute])
    silent = ROOT.authority("silent", number=1, extensions=[(CA, True)])
    (chain,) = chains_to(ROOT, sent=[silent.issue("pump-7", number=2), silent])
    assert flaws(chain) == []


def test_a_path_length_counts_the_intermediates_below() -> None:
    flat = x509.BasicConstraints(ca=True, path_length=0)
    top = root("top", extensions=[(flat, True)])
    below = top.authority("below", number=1)
    (chain,) = chains_to(top, sent=[top.issue("pump-7", number=2)])
    assert flaws(chain) == []
    assert "path length is 0, and 1" in flaw_of(top, sent=[below.issue("pump-7", number=2), below])


def test_a_self_issued_intermediate_is_not_counted() -> None:
    """A root that changed its key, by a certificate under its own name. [RFC 5280 6.1.4 l]"""
    flat = x509.BasicConstraints(ca=True, path_length=0)
    top = root("top", extensions=[(flat, True)])
    rolled = top.authority("top", number=1, extensions=[(flat, True)])
    (chain,) = chains_to(top, sent=[rolled.issue("pump-7", number=2), rolled])
    assert subjects(chain) == ["pump-7", "top", "top"]
    assert flaws(chain) == []


@pytest.mark.parametrize("place", ["leaf", "intermediate", "anchor"])
def test_an_unknown_critical_extension_is_refused_anywhere(place: str) -> None:
    strange = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
    for critical in (True, False):
        extra = {
            each: [(strange, critical)] if each == place else []
            for each in ("leaf", "intermediate", "anchor")
        }
        top = root("top", extensions=[(CA, True), *extra["anchor"]])
        below = top.authority("below", number=1, extensions=[(CA, True), *extra["intermediate"]])
        leaf = below.issue("pump-7", number=2, extensions=extra["leaf"])
        (chain,) = chains_to(top, sent=[leaf, below])
        found = flaws(chain)
        assert [("1.3.6.1.4.1.99999.1" in each.why) for each in found] == ([True] if critical else [])


def test_a_signature_over_sha_1_is_none_but_nobody_asks_for_that_of_an_anchor() -> None:
    anchor = made_by_openssl("sha1_root")
    (chain,) = chains_to(anchor, sent=[made_by_openssl("below_sha1_root")])
    assert flaws(chain, LATER) == []
    weak = made_by_openssl("below_sha1")
    assert chains_to(anchor, sent=[weak]) == []
    builder = ChainBuilder([weak.der])
    builder.advance({weak.certificate.issuer_key: [anchor.certificate]})
    (told,) = builder.turned_away
    assert "SHA1" in told


def test_a_short_key_of_an_issuer_is_refused() -> None:
    short = root("short", algorithm="rsa1024")
    assert "too short" in flaw_of(short, sent=[short.issue("pump-7")])


def test_name_constraints_are_not_judged_and_so_refused() -> None:
    constraints = x509.NameConstraints([x509.DNSName("example.org")], None)
    for critical in (True, False):
        bound = root("bound", extensions=[(CA, True), (constraints, critical)])
        assert "name constraints" in flaw_of(bound, sent=[bound.issue("pump-7")])


def test_an_old_root_of_version_1_will_do_an_intermediate_will_not() -> None:
    old, below = made_by_openssl("version_1_root"), made_by_openssl("version_1_intermediate")
    assert old.certificate.version == below.certificate.version == 1
    (chain,) = chains_to(old, sent=[made_by_openssl("below_root")])
    assert flaws(chain, LATER) == []
    (chain,) = chains_to(old, sent=[made_by_openssl("below_intermediate"), below])
    (flaw,) = flaws(chain, LATER)
    assert "no CA certificate" in flaw.why


def test_all_that_is_wrong_is_told_at_once() -> None:
    bad = ROOT.authority("bad", number=1, end=NOW - DAY, extensions=[])
    (chain,) = chains_to(ROOT, sent=[bad.issue("pump-7", number=2), bad])
    _, verdict, _ = chain.judge(NOW_US)
    assert verdict.text == (
        "CN=bad, issued by CN=root: it expired at 2026-05-31T00:00:00Z; "
        "it is no CA certificate (basicConstraints without CA:TRUE)"
    )


def test_a_leaf_that_is_none_is_invalid() -> None:
    at = LEAF.der.index(b"intermediate")
    for der in (b"certificate", LEAF.der[:at] + b"\xff" + LEAF.der[at + 1 :]):
        with pytest.raises(Invalid):
            ChainBuilder([der])


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@given(at=st.integers(0, len(INTERMEDIATE.der) - 1), byte=st.integers(0, 255))
def test_a_damaged_intermediate_never_makes_a_chain_without_flaw(at: int, byte: int) -> None:
    damaged = INTERMEDIATE.der[:at] + bytes([byte]) + INTERMEDIATE.der[at + 1 :]
    builder = ChainBuilder([LEAF.der, damaged])
    builder.advance({})
    reached = builder.advance({wanted: [ROOT.certificate] for wanted in builder.wants})
    assert damaged == INTERMEDIATE.der or not reached


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@given(at=st.integers(0, len(LEAF.der) - 1), byte=st.integers(0, 255))
def test_a_damaged_leaf_is_refused_or_has_no_issuer(at: int, byte: int) -> None:
    damaged = LEAF.der[:at] + bytes([byte]) + LEAF.der[at + 1 :]
    try:
        builder = ChainBuilder([damaged])
        assert builder.leaf.issuer is not None
        reached = builder.advance({wanted: [INTERMEDIATE.certificate] for wanted in builder.wants})
    except Invalid:
        return
    assert damaged == LEAF.der or not reached


@given(st.lists(st.binary(max_size=80), max_size=20))
def test_rubbish_beside_the_leaf_does_no_harm(rubbish: list[bytes]) -> None:
    builder = ChainBuilder([LEAF.der, *rubbish])
    (chain,) = builder.advance({LEAF.certificate.issuer_key: [INTERMEDIATE.certificate]})
    assert len(chain) == 2


# --- Beside openssl --------------------------------------------------------------------------------------

PATH_LENGTHS = st.sampled_from([None, None, 0, 1, 2])


@st.composite
def authorities(draw: st.DrawFn) -> dict[str, Any]:
    """The options of an authority, mostly good ones."""
    extensions: list[tuple[x509.ExtensionType, bool]] = []
    kind = draw(st.sampled_from(["ca"] * 12 + ["no", "none"]))
    if kind != "none":  # without basic constraints openssl makes do with a key usage; Moorage does not
        length = draw(PATH_LENGTHS) if kind == "ca" else None
        extensions.append((x509.BasicConstraints(ca=kind == "ca", path_length=length), draw(st.booleans())))
        signs = draw(st.sampled_from([None, True, True, True, True, False]))
        if signs is not None:
            extensions.append((usage(signs=signs), draw(st.booleans())))
    if draw(st.integers(0, 14)) == 0:
        strange = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
        extensions.append((strange, draw(st.booleans())))
    start, end = draw(st.sampled_from([(-30, 30)] * 12 + [(-30, -1), (1, 30)]))
    return {
        "extensions": extensions,
        "start": NOW + start * DAY,
        "end": NOW + end * DAY,
        "key_ids": True,  # without them openssl takes a certificate that has its issuer's name for a root
        "algorithm": draw(st.sampled_from(["p256", "p256", "rsa", "pss", "ed25519"])),
    }


@pytest.mark.skipif(which("openssl") is None, reason="openssl is not installed")
@settings(max_examples=60)
@given(data=st.data())
def test_verdicts_agree_with_openssl(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    top = root("top", **data.draw(authorities(), label="top"))
    line = [top]
    for place in range(1, data.draw(st.integers(1, 4), label="length")):
        own_name = data.draw(st.sampled_from(["top", f"ca-{place}", f"ca-{place}"]), label="name")
        options = data.draw(authorities(), label=own_name)
        line.append(line[-1].authority(own_name, number=place, **options))
    leaf = line[-1].issue("pump-7", number=9, key_ids=True)
    others = data.draw(st.permutations([leaf, *line[1:]]), label="order")

    chains = chains_to(top, sent=[leaf, *others])
    ours = any(not flaws(chain) for chain in chains)

    folder = tmp_path_factory.mktemp("chain")
    assert ours == _openssl_verifies(folder, leaf, others, top), [
        verdict.text for chain in chains for verdict in chain.judge(NOW_US)
    ]


def _openssl_verifies(folder: Path, leaf: Issued, others: Sequence[Issued], anchor: Issued) -> bool:
    files = {"leaf": [leaf], "others": others, "anchor": [anchor]}
    for stem, certificates in files.items():
        (folder / stem).write_text("".join(each.pem for each in certificates))
    command = ["openssl", "verify", "-partial_chain", "-no-CAfile", "-no-CApath", "-no-CAstore"]
    command += ["-trusted", str(folder / "anchor"), "-untrusted", str(folder / "others")]
    command += ["-auth_level", "2", "-attime", str(round(NOW.timestamp())), str(folder / "leaf")]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_the_keys_of_this_module_differ() -> None:
    assert key("p256", 1) is not key("p256", 2)
