"""Each errand finds what it is there to find; nobody is blamed for a machine without time."""

import shutil
import socket
import threading
from collections.abc import Iterator

import pytest

from proxmox_cpu_affinity.linux.dropins import FOLDER
from tests.faults.errands import HELD, QEMU_TOO_SLOW, DropIn, Install, Life, TooSlowError
from tests.faults.playground import Playground, asked, playground
from tests.faults.steps import done

TOO_SLOW = f'#!/bin/sh\necho "start failed: command \'{QEMU_TOO_SLOW}" >&2\nexit 255\n'


@pytest.fixture
def ground() -> Iterator[Playground]:
    with playground(mounts=False) as made:
        yield made


@pytest.fixture
def life(ground: Playground) -> Life:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    return Life(ground)


def test_start_that_the_machine_was_too_slow_for_is_tried_again(life: Life) -> None:
    life.ground.qm.write_text(TOO_SLOW)  # until all is quiet again
    assert done(life, life.tracer.watching()) == []
    assert life.tracer.steps()


def test_machine_that_is_too_slow_each_time_is_told(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(life.ground, "true_qm", TOO_SLOW)
    life.ground.qm.write_text(TOO_SLOW)
    with pytest.raises(TooSlowError, match=f"the start of {HELD} failed: start failed: command"):
        done(life, life.tracer.watching())


def _instead(text: str) -> list[str]:
    """In front of a command: this is done in its place."""
    return ["sh", "-c", text]


def test_hook_that_is_half_there_is_found(ground: Playground) -> None:
    install = Install(ground)
    assert install.do(()) == []
    assert [one[:18] for one in install.do(_instead(f"echo half >{install.target}"))] == [
        "half a hook is the"
    ]


def test_hook_that_is_said_to_be_installed_and_is_not_is_found(ground: Playground) -> None:
    assert Install(ground).do(["true"]) == ["it says that it is installed, and it is not"]


def test_what_an_installation_leaves_is_found(ground: Playground) -> None:
    install = Install(ground)
    assert install.do(_instead(f"echo >{install.folder}/.stray; exit 1")) == ["left over: .stray"]


def test_drop_in_that_is_half_there_or_stays_is_found(ground: Playground) -> None:
    errand = DropIn(ground)
    assert errand.do(()) == []
    folder = ground.node.root / FOLDER / "100.scope.d"
    text = f"mkdir -p {folder}; echo half >{folder}/strange.conf"
    assert errand.do(_instead(text)) == ["half a drop-in: 'half\\n'", "left over: strange.conf"]


def test_half_an_answer_is_none(ground: Playground) -> None:
    """As when the service cannot send the rest of it."""
    service = ground.service(begun=False)
    service.socket.parent.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(service.socket))
        listener.listen()

        def answer() -> None:
            for _ in range(2):
                with listener.accept()[0] as peer:
                    peer.recv(4096)
                    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert not service.answers()
        assert asked(service, "/api/v1/reassign") is None
        thread.join()
