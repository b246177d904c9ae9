"""What the faces of AMQP have in common: addresses, and one handler for each link."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from moorage.wire.amqp import DeliveryReceived, DispositionReceived, Receiver, Sender

if TYPE_CHECKING:
    from moorage.adapters.amqp import AmqpConversation
    from moorage.provisioning.challenge import TpmKeys


def address_path(address: object) -> list[str]:
    """`/a/b`, `a/b` and `amqps://host:5671/a/b` alike: ["a", "b"] [hub-service 10.3]; [] for what is no text."""
    text = address if isinstance(address, str) else ""
    if "://" in text:
        text = text.split("://", 1)[1].partition("/")[2]
    return [segment for segment in text.split("/") if segment]


def link_path(link: Sender | Receiver) -> list[str]:
    """The path of the node that the peer wants to read from, or write to."""
    terminus = link.source if isinstance(link, Sender) else link.target
    return address_path(terminus.address if terminus is not None else None)


class LinkHandler:
    """What a face does with one link that it took. Every method may send on any link of the connection."""

    def __init__(self, conversation: AmqpConversation, link: Sender | Receiver) -> None:
        self.conversation = conversation
        self.link = link

    def credit(self) -> None:
        """The peer takes more, or wants its credit used up or given back. [AMQP 2.6.7]"""
        if isinstance(self.link, Sender):
            self.link.drained()

    def delivery(self, delivery: DeliveryReceived) -> None:
        """A message has come, on a Receiver."""

    def outcome(self, outcome: DispositionReceived) -> None:
        """What the peer says of a message that was sent unsettled, on a Sender."""

    def drained(self) -> None:
        """The connection can take more bytes again."""

    def recheck(self) -> None:
        """A token has ended. Raises Unauthorized when this link may not go on."""

    def detached(self) -> None:
        """The link is gone; called once."""


class Credentials(NamedTuple):
    """Who somebody says to be in SASL, and by what; whoever has been let in by a `Gate` or a dialogue has them.

    `tpm` are the keys of the TPM that has signed the password, a SAS token.
    """

    user: str
    password: str
    tpm: TpmKeys | None = None


class Gate(Protocol):
    """Lets in who comes with a user name of their own in SASL, and not in the name of a hub's policy.

    Whether their `Credentials` hold is for the links to judge, with each request.
    """

    def knows(self, user: str) -> bool:
        """Whether such a user name is for this gate."""
        ...


class SaslDialogue(Protocol):
    """A SASL mechanism of several steps, on one connection."""

    def step(self, response: bytes | None) -> bytes | Credentials:
        """What to say to the initial response, then to each further one: a challenge; credentials that hold end it.

        Raises MoorageError when they do not, which has left a decision.
        """
        ...


class Face(Protocol):
    """Answers the links to its own addresses."""

    def takes(self, path: Sequence[str]) -> bool:
        """`path` is the address without scheme and host, in segments as they were written."""
        ...

    def attach(
        self, conversation: AmqpConversation, link: Sender | Receiver, path: Sequence[str]
    ) -> LinkHandler:
        """Accept the link and serve it. Raises MoorageError to have it refused."""
        ...
