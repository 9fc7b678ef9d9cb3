"""hwloc's XML from elsewhere: whatever makes or fetches text is refused before it is looked at."""

import pytest

from proxmox_cpu_affinity.formats import hwloc
from proxmox_cpu_affinity.model.errors import SyntaxFault

PU = '<topology version="2.0"><object type="PU" os_index="0"/>{}</topology>'
LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10 if n else "ha"}">' for n in range(12))

ATTACKS = {
    "a billion laughs": f"<!DOCTYPE topology [{LAUGHS}]>" + PU.format("&l11;"),
    "quadratic": f'<!DOCTYPE topology [<!ENTITY a "{"x" * 9999}">]>' + PU.format("&a;" * 9999),
    "a file": '<!DOCTYPE topology [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + PU.format("&a;"),
    "an address": '<!DOCTYPE topology [<!ENTITY a SYSTEM "http://evil/">]>' + PU.format("&a;"),
    "parameter entities": '<!DOCTYPE topology [<!ENTITY % a SYSTEM "file:///x"> %a;]>'
    + PU.format(""),
    "a parameter entity of text": "<!DOCTYPE topology [<!ENTITY % a '<!ENTITY b \"c\">'> %a;]>"
    + PU.format("&b;"),
    "a document type elsewhere": '<!DOCTYPE topology SYSTEM "http://evil/x.dtd">' + PU.format(""),
    "one on this host": '<!DOCTYPE topology SYSTEM "file:///etc/passwd">' + PU.format(""),
    "a public one": '<!DOCTYPE topology PUBLIC "-//x//" "hwloc2.dtd">' + PU.format(""),
    "defaults of attributes": '<!DOCTYPE topology [<!ATTLIST object os_index CDATA "1">]>'
    + PU.format(""),
    "an undefined entity": '<!DOCTYPE topology SYSTEM "hwloc2.dtd">' + PU.format("&a;"),
    "an instruction": '<?xml-stylesheet href="x"?>' + PU.format(""),
    "depth": PU.format("<object>" * 100_000),
    "another coding": '<?xml version="1.0" encoding="utf-7"?>' + PU.format("+ADw-"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_is_made_or_fetched(name: str) -> None:
    text = ATTACKS[name]
    if name == "another coding":  # what is parsed is always UTF-8: the text is only a text
        assert "+ADw-" not in str(hwloc.parse(text).files)
        return
    with pytest.raises(SyntaxFault):
        hwloc.parse(text)
