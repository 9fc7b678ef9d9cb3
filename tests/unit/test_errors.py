"""The family of errors: codes, exit statuses and HTTP statuses are promises, so they stand here."""

import re
from collections import Counter

import pytest

from proxmox_cpu_affinity.model import errors
from proxmox_cpu_affinity.model.errors import AffinityError, SyntaxFault, family

# Class, code, exit status, HTTP status. A change here is a change for those who use the API.
TABLE = (
    ("AffinityError", "internal-error", 1, 500),
    ("UsageError", "usage", 2, 400),
    ("BadRequestError", "bad-request", 1, 400),
    ("SyntaxFault", "syntax", 1, 400),
    ("SettingError", "setting", 78, 500),
    ("NotPveHostError", "not-a-pve-host", 1, 503),
    ("GuestNotFoundError", "guest-not-found", 1, 404),
    ("NotFoundError", "not-found", 1, 404),
    ("ForbiddenError", "forbidden", 1, 403),
    ("UnauthorizedError", "unauthorized", 1, 401),
    ("TooLargeError", "too-large", 1, 413),
    ("RefusedError", "refused", 1, 409),
    ("ServiceDownError", "service-down", 1, 503),
    ("ProgramFailedError", "program-failed", 1, 500),
    ("SystemdError", "systemd", 1, 503),
    ("MeasureError", "measure", 1, 503),
    ("StoreError", "store", 1, 500),
    ("ExhaustedError", "exhausted", 1, 503),
    ("UnplaceableError", "unplaceable", 1, 409),
)
OURS = [kind for kind in family() if kind.__module__ == errors.__name__]


def test_every_class_is_in_the_table() -> None:
    found = {(kind.__name__, kind.code, kind.exit_status, kind.http_status) for kind in OURS}
    assert found == set(TABLE)
    assert len(OURS) == len(TABLE)


def test_the_family_begins_with_its_base_and_has_no_other_root() -> None:
    assert family()[0] is AffinityError
    defined = {k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, Exception)}
    assert defined == set(OURS)


def test_codes_are_unique_words() -> None:
    codes = Counter(kind.code for kind in family())
    assert set(codes.values()) == {1}
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in codes)


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_statuses_are_sensible(kind: type[AffinityError]) -> None:
    # 1 failed, 2 usage, 78 EX_CONFIG: 0 is success, 3 a partial one, above 128 are signals.
    assert kind.exit_status in (1, 2, 78)
    assert 400 <= kind.http_status <= 599


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_text_and_hint_are_single_lines(kind: type[AffinityError]) -> None:
    error = kind("what is wrong")
    assert (error.text, str(error)) == ("what is wrong", "what is wrong")
    assert error.hint == kind.default_hint
    assert "\n" not in kind.default_hint
    assert kind("what is wrong", hint="what to do").hint == "what to do"
    assert kind.__doc__


def test_a_syntax_fault_is_located() -> None:
    fault = SyntaxFault("no number", where="file, line 3", hint="write one")
    assert fault.text == "file, line 3: no number"
    assert (fault.where, fault.hint) == ("file, line 3", "write one")
    assert SyntaxFault("no number").text == "no number"


def test_there_are_hints_where_one_is_at_a_loss() -> None:
    at_a_loss = {kind.code for kind in OURS if kind.default_hint}
    assert at_a_loss >= {"not-a-pve-host", "guest-not-found", "unauthorized", "service-down"}
