"""E-mail addresses as this program takes them: plain ASCII, one mailbox, nothing that could be read as two. Pure."""

import re

LONGEST = 254
_ADDRESS = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)


def is_address(text: str) -> bool:
    """Whether this is the address of one mailbox and nothing else: no name, no space, no line break."""
    return len(text) <= LONGEST and text.find("@") <= 64 and _ADDRESS.fullmatch(text) is not None


def domain(address: str) -> str:
    """What stands behind the @."""
    return address.rpartition("@")[2]
