"""How much of Azure's protocols this release speaks: one row a capability, and the page made from the rows.

    python -m moorage.coverage > docs/coverage.md

The numbers are those of the checklists in the project's protocol notes. A row is judged by what a client sees:
nothing counts as exact that answers success without doing what was asked, and a refused row says what the
refusal looks like on the wire.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Area(StrEnum):
    """Which checklist a row belongs to."""

    DPS = "dps"
    HUB_DEVICE = "hub-device"
    HUB_SERVICE = "hub-service"


class Standing(StrEnum):
    EXACT = "exact"
    APPROXIMATE = "approximate"
    REFUSED = "refused"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True, slots=True)
class Row:
    """One capability. `note` says what is approximate, how it is refused, or why it does not apply."""

    area: Area
    number: int
    capability: str
    standing: Standing
    note: str = ""


class Judged(NamedTuple):
    """A row before it is known to which checklist it belongs."""

    number: int
    capability: str
    standing: Standing
    note: str


def exact(number: int, capability: str, note: str = "") -> Judged:
    return Judged(number, capability, Standing.EXACT, note)


def approximate(number: int, capability: str, difference: str) -> Judged:
    return Judged(number, capability, Standing.APPROXIMATE, difference)


def refused(number: int, capability: str, how: str) -> Judged:
    return Judged(number, capability, Standing.REFUSED, how)


def not_applicable(number: int, capability: str, why: str) -> Judged:
    return Judged(number, capability, Standing.NOT_APPLICABLE, why)


# The ways in which a client is told no.
HTTP_501 = "HTTP 501"
NO_LINK = "the link is refused with `amqp:not-implemented`"
AMQP_DEVICE = "`$cbs` answers 501, SASL PLAIN ends in outcome auth, a link gets `amqp:not-implemented`"
OTHER_TRANSPORTS = "AMQP and HTTPS are refused before that"
RESOURCE_MANAGER = "set through Azure's resource manager, each path of which is answered with 501"

# Why some rows ask for nothing.
UNLIMITED = "no rate is limited, so nobody is told to slow down"


_DPS = (
    exact(1, "TLS 1.2 on 8883, 5671 and 443; client certificates of any kind, and none; a root of one's own"),
    exact(2, "The device API under the global host name and under the instance's own"),
    exact(3, "The ID scope names the instance; an unknown one is an error"),
    exact(4, "MQTT user name in every order and encoding that clients use"),
    exact(5, "MQTT clean session 0 and 1, never a session present"),
    exact(6, "MQTT subscription to the responses, granted at QoS 1 at the most"),
    exact(7, "Registering over MQTT with a full body"),
    exact(8, "Registering over MQTT with an empty body"),
    exact(9, "Polling an operation over MQTT"),
    exact(10, "PUBACK before the answer it belongs to"),
    exact(11, "MQTT over WebSockets"),
    exact(12, "AMQP with SASL PLAIN"),
    exact(13, "AMQP without SASL, by client certificate"),
    exact(14, "AMQP over WebSockets"),
    exact(15, "Registering and polling over AMQP with a correlation id"),
    exact(16, "Registering and polling over AMQP without one"),
    exact(17, "AMQP rejection that carries the JSON error and when to retry"),
    exact(18, "AMQP with SASL mechanism TPM"),
    exact(19, "Registering over HTTPS, always answered with 202"),
    exact(20, "Polling an operation over HTTPS, also with a body"),
    exact(21, "Looking up a registration over HTTPS"),
    exact(22, "The TPM challenge over HTTPS"),
    exact(23, "SAS tokens in every spelling"),
    exact(24, "Individual enrollment by symmetric key, either key"),
    exact(25, "Enrollment group by symmetric key, derived keys"),
    exact(26, "A group's own key does not let a device in"),
    exact(27, "Keys made when an enrollment is created"),
    exact(28, "Individual enrollment by X.509 certificate, primary and secondary"),
    exact(29, "Enrollment group by a stored intermediate or root certificate"),
    exact(30, "Enrollment group by reference to an uploaded CA certificate"),
    exact(31, "CA certificates: upload, verification code, verification"),
    exact(32, "Individual enrollment by TPM, RSA keys"),
    exact(33, "Individual enrollment before group, also when disabled"),
    exact(34, "A disabled enrollment ends the operation as `disabled`, with status 200"),
    exact(35, "Bad credentials are told to the register request, with 401, and not at CONNECT"),
    exact(36, "Operations that fail: no eligible hub, a hub that refuses, a webhook that fails"),
    exact(37, "Hashed allocation by weight"),
    exact(38, "Static allocation, and the older `iotHubHostName`"),
    exact(
        39,
        "Allocation by latency",
        "of each hub, told by the operator or measured from here; a device's own distance is in nothing that it sends",
    ),
    exact(40, "Custom allocation by webhook, its payload and its initial twin"),
    exact(41, "A payload from the device up to the webhook, and one from there down to the device"),
    exact(
        42,
        "Reprovisioning that migrates the twin",
        "reported properties do not travel to a hub of another server",
    ),
    exact(43, "Reprovisioning that resets the twin"),
    exact(44, "Reprovisioning switched off"),
    exact(45, "Registering again at the same hub renews the credentials there"),
    exact(46, "The substatus by api-version"),
    exact(47, "A device id of its own in an individual enrollment"),
    exact(48, "Initial twin: tags and desired properties"),
    exact(49, "Enrollment of an IoT Edge device"),
    exact(50, "Optional device information is kept and shown"),
    exact(51, "What the hub's identity gets: the keys, or the leaf's SHA-256"),
    exact(52, "Reading, writing and deleting individual enrollments, with their statuses"),
    exact(53, "Reading, writing and deleting enrollment groups, with their statuses"),
    exact(54, "Conditional writes: 409, 412, `*`, etags with and without quotes"),
    exact(55, "Bulk operations on individual enrollments, in four modes"),
    exact(56, "Bulk operations on groups"),
    exact(57, "Queries with paging headers"),
    exact(58, "Reading the attestation mechanism"),
    exact(59, "Registration records: read, delete, query by group"),
    exact(60, "Secrets come back on PUT alone"),
    exact(61, "Certificates in every encoding, and back as `info` alone"),
    exact(62, "Service SAS tokens, with the rights of their policy"),
    exact(63, "Error bodies and codes", "a code never seen on the wire ends in 000"),
    exact(64, "Validation, told with 400"),
    exact(
        65, "Throttling with 429 on three protocols", "with `--limits azure`; by default no rate is limited"
    ),
    exact(66, "Ids and paths without regard to case"),
    exact(
        67,
        "Connection strings, policies, linked hubs",
        "`moorage dps policy`, `linked-hub` and `connection-string`, over an API of our own",
    ),
    exact(68, "Old and new api-versions, and the strictness of IoT Edge"),
    exact(
        69,
        "A certificate request inside the registration",
        "from an issuing CA of the server's own, by credential policies; a device renews by registering again",
    ),
    exact(70, "Connection profile", "left out, which means classic"),
    refused(71, "IP filters for each API", RESOURCE_MANAGER),
    exact(
        72, "A record of each attestation: counted in `/metrics`, and told by `moorage explain` and the log"
    ),
    exact(73, "Registration records outlive their enrollments"),
    refused(
        74,
        "Azure's resource manager",
        "another service, on a host of its own; here each of its paths is answered with 501, and `moorage dps` and "
        "`moorage hub` do its work",
    ),
)

_HUB_DEVICE = (
    exact(1, "MQTT over TLS, port 8883"),
    exact(2, "MQTT over WebSockets, port 443"),
    refused(3, "AMQP over TLS", AMQP_DEVICE),
    refused(4, "AMQP over WebSockets", AMQP_DEVICE),
    refused(5, "HTTPS", HTTP_501),
    exact(6, "The WebSocket path with a query, and with `$` written as `%24`"),
    not_applicable(
        7, "WebSockets through an HTTP proxy", "the proxy stands before the server, which sees no difference"
    ),
    exact(8, "A CA of one's own; a server that is not trusted is refused by the client"),
    exact(9, "A device's SAS token, by either key"),
    exact(10, "SAS tokens made by the user, fields in any order and encoding"),
    exact(11, "Tokens of a shared access policy, for one device or for all"),
    exact(12, "An expired token is refused, with five minutes of grace"),
    exact(13, "A connection is closed some minutes after its token expired"),
    exact(14, "Renewal of a token by connecting again"),
    refused(15, "Renewal of a token over AMQP", AMQP_DEVICE),
    approximate(
        16, "X.509 by thumbprint on every transport", f"exact over MQTT and its WebSocket; {OTHER_TRANSPORTS}"
    ),
    exact(17, "X.509 signed by a CA, with intermediates"),
    approximate(
        18,
        "A wrong certificate is unauthorized on five transports",
        f"exact over MQTT and its WebSocket, with CONNACK 5; {OTHER_TRANSPORTS}",
    ),
    exact(19, "Client certificates with elliptic curve keys"),
    exact(20, "Unknown devices and malformed ids are refused"),
    exact(21, "A disabled device gets CONNACK 3 and loses its connection"),
    exact(22, "One connection an identity: the newer takes over"),
    exact(23, "User names in every form, older ones included"),
    exact(24, "The model id a device announces"),
    exact(25, "Sessions kept between connections, and over a restart"),
    exact(26, "Keep-alive, and a prompt PINGRESP"),
    exact(27, "Several filters in one SUBSCRIBE"),
    exact(28, "UNSUBSCRIBE leaves the connection alone"),
    exact(29, "Telemetry at QoS 0 and 1"),
    exact(30, "Telemetry with application properties and all system properties"),
    exact(31, "Property names and values with unusual characters"),
    exact(32, "Properties that are null or empty"),
    exact(33, "Telemetry without a payload"),
    exact(34, "Telemetry of 255 KiB"),
    approximate(
        35,
        "Telemetry that is too large",
        f"exact over MQTT and its WebSocket, which close; {OTHER_TRANSPORTS}",
    ),
    exact(36, "Will messages"),
    exact(37, "The retain flag becomes the property `mqtt-retain`"),
    exact(38, "Security messages, by interface id"),
    exact(39, "Telemetry of modules, and named outputs"),
    refused(40, "Telemetry in batches over AMQP", AMQP_DEVICE),
    refused(41, "Sending one message over HTTPS", HTTP_501),
    refused(42, "Sending a batch over HTTPS", HTTP_501),
    exact(43, "How the sender was authenticated is stamped on each event"),
    exact(44, "Cloud-to-device messages over MQTT"),
    refused(45, "Cloud-to-device messages over AMQP", AMQP_DEVICE),
    refused(46, "Cloud-to-device messages over HTTPS", HTTP_501),
    refused(47, "An abandoned message comes again", HTTP_501),
    exact(48, "Messages sent while the device was away"),
    refused(49, "Cloud-to-device messages of 64 KiB, in small frames", AMQP_DEVICE),
    exact(50, "Cloud-to-device messages without a body"),
    exact(51, "The destination as the sender wrote it"),
    exact(52, "Feedback on cloud-to-device messages"),
    exact(53, "Expiry, delivery count and purge of messages"),
    exact(54, "At most fifty messages in a queue"),
    exact(55, "Cloud-to-device messages to modules"),
    exact(56, "Inputs of modules", "granted; as at Azure, only an IoT Edge gateway sends to them"),
    exact(57, "Reading the twin over MQTT"),
    refused(58, "Reading the twin over AMQP", AMQP_DEVICE),
    exact(59, "Reported properties over MQTT"),
    refused(60, "Reported properties over AMQP", AMQP_DEVICE),
    exact(61, "Reported properties under a version condition"),
    exact(62, "A patch that is not valid gets a JSON error"),
    exact(63, "Null deletes; a null within makes `{}`"),
    exact(64, "Arrays in twins"),
    exact(65, "Texts that look like dates stay as they are"),
    exact(66, "Changes of desired properties, told over MQTT"),
    refused(67, "Changes of desired properties, told over AMQP", AMQP_DEVICE),
    exact(68, "Giving up the subscription to them"),
    exact(69, "What changed while the device was away is read with the twin"),
    exact(70, "Module twins"),
    exact(71, "Direct methods over MQTT"),
    refused(72, "Direct methods over AMQP", AMQP_DEVICE),
    exact(73, "Payloads of methods: null, text, array, object"),
    exact(74, "A method that takes too long"),
    exact(75, "Methods of devices that are away or unknown"),
    exact(76, "Methods of modules"),
    refused(77, "File upload: begin and notify, in four forms of path", HTTP_501),
    refused(78, "Uploading a blob at once", "no upload can be begun: HTTP 501"),
    refused(79, "Uploading a blob in blocks", "no upload can be begun: HTTP 501"),
    refused(80, "Notification of an upload, with its size", "no upload can be begun: HTTP 501"),
    refused(81, "An upload of 250 MB", "no upload can be begun: HTTP 501"),
    approximate(
        82,
        "AMQP opened by ANONYMOUS, MSSBCBS, PLAIN or without SASL",
        f"exact for back ends; of devices {AMQP_DEVICE}",
    ),
    approximate(
        83,
        "Tokens over `$cbs` with message ids of every type",
        "exact for back ends; a device's token is answered 501, to the id in its own type",
    ),
    refused(84, "Many devices on one AMQP connection", AMQP_DEVICE),
    refused(85, "One bad device among many on an AMQP connection", AMQP_DEVICE),
    approximate(86, "AMQP heartbeats", "kept up on every connection; a device's links on it are refused"),
    refused(87, "Thousands of messages on one AMQP link", AMQP_DEVICE),
    not_applicable(
        88, "Fault injection", "for Microsoft's own test hubs: elsewhere such a message is telemetry like any"
    ),
    refused(89, "AMQP links with a correlation id of the client's own", AMQP_DEVICE),
    refused(90, "A module calls a method through its gateway", "its token does not open that path: HTTP 401"),
    exact(91, "Twin changes as events in the built-in endpoint", "by a route for them, as in Azure"),
    approximate(
        92,
        "`az iot device simulate`",
        f"exact over MQTT, and so is `moorage device simulate`; over HTTPS {HTTP_501}",
    ),
)

_HUB_SERVICE = (
    exact(1, "HTTPS on 443 under the bare host name, with a private CA"),
    exact(2, "Any api-version, and 400 without one"),
    exact(3, "SAS tokens in every spelling, by either key, as bytes or as text"),
    exact(4, "A token covers what lies below its resource"),
    exact(5, "A device's token does not open the service API"),
    exact(6, "Five policies with their rights, and those that an operator makes; 401 without the right"),
    exact(7, "Microsoft Entra tokens are refused with 401"),
    exact(8, "Errors in the first JSON shape, with the header `iothub-errorcode`"),
    exact(9, "Errors in the second JSON shape"),
    exact(10, "AMQP errors: conditions, and JSON in the description"),
    not_applicable(11, "Throttling with 429", UNLIMITED),
    exact(12, "Creating a device whose keys the hub makes"),
    exact(13, "Creating a device with keys, thumbprints, a CA or nothing"),
    exact(14, "409 when the device exists"),
    exact(15, "Reading a device, with its etag in the header"),
    exact(16, "Updating under an etag or any etag; 412"),
    exact(17, "An empty key is made anew"),
    exact(18, "Enabling and disabling, with a reason"),
    exact(19, "Deleting with and without an etag; 404 for what is not there"),
    exact(20, "Device ids with unusual characters"),
    exact(21, "Listing, with `top`, with and without a slash behind"),
    exact(22, "Bulk requests in every mode, capitalized as one likes"),
    exact(23, "Module identities"),
    exact(24, "Keys and generations of modules"),
    exact(25, "IoT Edge devices, with a scope and the modules `$edgeAgent` and `$edgeHub`"),
    exact(26, "Parents and children"),
    exact(27, "Regenerating the keys of many devices and modules"),
    exact(28, "Statistics of devices and of the service"),
    exact(29, "Purging the commands of a device"),
    exact(30, "A new generation id when a device is created again"),
    exact(31, "Reading twins of devices and modules"),
    exact(32, "Patching tags and desired properties"),
    exact(33, "Replacing a twin"),
    exact(34, "412 for a twin's old etag"),
    exact(35, "Versions and metadata of twins"),
    exact(36, "`desired: null` clears, and the device is told"),
    exact(37, "Limits of twins, told with 400"),
    exact(38, "Authentication type, model id and connection state in twins"),
    exact(39, "Queries with paging"),
    exact(40, "The type of a query's items in the header"),
    exact(41, "Projection, counting, grouping and `TOP`"),
    exact(42, "Nested paths, quoted ids, `IN`, functions"),
    exact(43, "Queries over modules"),
    approximate(44, "Queries over jobs", "no job can be scheduled (89), so there are none to show"),
    exact(45, "400 with the reason for a query that does not parse"),
    exact(46, "Calling a direct method of a device"),
    exact(47, "Calling a direct method of a module"),
    exact(48, "Waiting for the device to connect"),
    exact(49, "404 and 504 for methods"),
    exact(50, "Methods with empty and null payloads"),
    exact(51, "AMQP over TLS with MSSBCBS, ANONYMOUS and PLAIN on offer"),
    exact(52, "AMQP opened without SASL"),
    exact(53, "Tokens over `$cbs`, answered to an id of the same type"),
    exact(54, "Refusal, renewal and expiry of tokens"),
    exact(55, "SASL PLAIN with a policy and its token"),
    exact(56, "Addresses as path or URL, in any case"),
    exact(57, "Performatives whole, with handle-max, source and target"),
    exact(58, "A detach behind an end is passed over"),
    exact(59, "WebSocket at `/$iothub/websocket`, with any query"),
    exact(60, "WebSocket at `/$servicebus/websocket/`"),
    exact(61, "Cloud-to-device messages to devices and modules"),
    exact(62, "Ids in the destination, encoded and raw"),
    exact(63, "Properties, acknowledgement, expiry and empty bodies"),
    exact(64, "A message to an unknown device is rejected"),
    exact(65, "A message to a full queue is rejected"),
    exact(66, "The limit of 64 KiB"),
    exact(67, "Feedback batches"),
    exact(68, "Feedback: accept, release, reject, several receivers"),
    exact(69, "Feedback over REST", "the lock token in `ETag` is a GUID, as devices get theirs"),
    refused(70, "File notifications", NO_LINK),
    exact(71, "The built-in endpoint by the hub's policies"),
    exact(72, "`$management` tells of the event hub and of its partitions"),
    exact(73, "Receivers for each partition, in `$Default` and in groups that an operator makes"),
    exact(74, "Every selector on offset, sequence number and time"),
    exact(75, "Receivers with epochs; the higher one takes the partition"),
    exact(76, "Runtime metrics beside the events"),
    exact(77, "Annotations and properties of events, offsets as text"),
    exact(78, "Partitions stay what they are; the events of a device stay in order"),
    exact(
        79,
        "Retention",
        "a place past it goes on with the oldest event kept; one that is yet to come is refused",
    ),
    exact(80, "Redirection from the hub to the built-in endpoint"),
    exact(
        81,
        "WebSocket, custom endpoint, emulator",
        "`UseDevelopmentEmulator=true` goes without TLS: `moorage up --amqp-plain-port 5672` opens that door",
    ),
    approximate(
        82,
        "Message routes and the fallback route",
        "routes of telemetry, twin changes, life cycle and connection state to the built-in endpoint, by "
        "`moorage hub message-route`; other sources, endpoints and conditions are refused",
    ),
    refused(83, "Conditions of routes", RESOURCE_MANAGER),
    refused(84, "Message enrichments", RESOURCE_MANAGER),
    exact(85, "Twin changes as events, nulls kept"),
    exact(86, "Life cycle and connection state of devices as events", "told at once, not after a minute"),
    refused(87, "Testing routes", RESOURCE_MANAGER),
    refused(88, "Event Grid", RESOURCE_MANAGER),
    refused(89, "Scheduled jobs on twins and methods", HTTP_501),
    refused(90, "Jobs: cancel, query, echo", HTTP_501),
    refused(91, "Import and export of identities", HTTP_501),
    refused(92, "Configurations: create, read, update, delete", HTTP_501),
    refused(93, "Metrics of configurations, and testing them", HTTP_501),
    refused(94, "Configurations applied to the devices they name", HTTP_501),
    refused(95, "Applying a configuration's content to one device", HTTP_501),
    refused(96, "Digital twins: read, patch, commands", HTTP_501),
    refused(97, "Storage for file upload", RESOURCE_MANAGER),
    exact(98, "CA certificates, and devices that they signed"),
    not_applicable(99, "Throttles", UNLIMITED),
)

ROWS: tuple[Row, ...] = tuple(
    Row(area, *judged)
    for area, checklist in (
        (Area.DPS, _DPS),
        (Area.HUB_DEVICE, _HUB_DEVICE),
        (Area.HUB_SERVICE, _HUB_SERVICE),
    )
    for judged in checklist
)

# --- The page --------------------------------------------------------------------------------------------

TITLES = {
    Area.DPS: "Device Provisioning Service",
    Area.HUB_DEVICE: "IoT Hub, towards devices",
    Area.HUB_SERVICE: "IoT Hub, towards back ends",
}

_HEAD = """\
# Coverage

What clients of Azure IoT Hub and of its Device Provisioning Service can do, and what Moorage makes of it.

- **exact**: as Azure does it, as far as a client can tell.
- **approximate**: done, with the difference that the note names.
- **refused**: not done in this release, and said so in the way that the note names; never accepted and dropped.
- **not applicable**: nothing that this server could do or leave undone.

`moorage explain` shows a refusal with its reason.

This page is made from the table in `src/moorage/coverage.py`: `python -m moorage.coverage > docs/coverage.md`.
"""


def markdown(rows: Sequence[Row] = ROWS) -> str:
    """The page: how many of each standing, then a table an area."""
    lines = [_HEAD, _line("", *Standing), _rule(1 + len(Standing))]
    lines += [_tally(area, rows) for area in Area]
    for area in Area:
        lines += ["", f"## {TITLES[area]}", "", _line("#", "capability", "standing", "note"), _rule(4)]
        lines += _table(row for row in rows if row.area is area)
    return "\n".join(lines) + "\n"


def _tally(area: Area, rows: Sequence[Row]) -> str:
    counted = Counter(row.standing for row in rows if row.area is area)
    return _line(TITLES[area], *(str(counted[standing]) for standing in Standing))


def _table(rows: Iterator[Row]) -> Iterator[str]:
    for row in rows:
        yield _line(str(row.number), row.capability, row.standing, row.note)


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _rule(columns: int) -> str:
    return _line(*["---"] * columns)


if __name__ == "__main__":
    print(markdown(), end="")
