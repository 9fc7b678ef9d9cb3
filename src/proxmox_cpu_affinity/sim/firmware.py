"""The guests' firmware: 64 KiB of our own instead of a BIOS and an operating system.

It switches the power management registers of the i440fx machine on, halts, powers the machine off
once the power button was pressed, lets vCPUs go that are to be unplugged, and resets the machine on
an NMI, which so stands for a reboot from inside. `qm shutdown` works from a guest's first
millisecond, and an idle guest costs no CPU time but that of 18 timer interrupts a second. Real
mode, one vCPU (the others wait for a start that never comes), no disk, no memory but the interrupt
table and a stack.
"""

SIZE = 64 * 1024
PM_BASE = 0x600  # where SeaBIOS puts it too
_STATUS, _ENABLE, _CONTROL = PM_BASE, PM_BASE + 2, PM_BASE + 4
_BUTTON = 0x0100  # in status and enable; QEMU takes words there and ignores a single high byte
_SLEEP_S5 = 0x2000  # SLP_EN with sleep type 0, which is "off" on this machine
# QEMU's docs/specs/acpi_cpu_hotplug.rst: selector, then flags and command of the vCPU selected.
_HOTPLUG = 0xAF00
_HOTPLUG_FLAGS, _HOTPLUG_COMMAND = _HOTPLUG + 4, _HOTPLUG + 5
_INSERTED, _TO_REMOVE, _EJECT = 2, 4, 8
_RESET_PORT, _RESET = 0xCF9, 6
_NMI_VECTOR, _TIMER_VECTOR = 2, 8
_LOCAL_APIC = 0xFEE0_0000
# In the image, behind the code.
_TIMER_AT, _GDT_AT, _GDTR_AT, _NMI_AT = 0x200, 0x210, 0x220, 0x230


def _out8(port: int, value: int) -> bytes:
    return bytes((0xB0, value, 0xE6, port))  # mov al, value; out port, al


def _out16(port: int, value: int) -> bytes:
    """mov dx, port; mov ax, value; out dx, ax"""
    return b"\xba" + port.to_bytes(2, "little") + b"\xb8" + value.to_bytes(2, "little") + b"\xef"


def _port8(port: int, value: int) -> bytes:
    """mov dx, port; mov al, value; out dx, al"""
    return b"\xba" + port.to_bytes(2, "little") + bytes((0xB0, value, 0xEE))


def _pci_write16(register: int, value: int) -> bytes:
    """Write a word of the configuration space of device 1, function 3: PIIX4's power part."""
    address = 0x8000_0000 | 1 << 11 | 3 << 8 | register
    select = b"\x66\xb8" + address.to_bytes(4, "little")  # mov eax, address
    select += b"\xba\xf8\x0c\x66\xef"  # mov dx, 0xcf8; out dx, eax
    return select + _out16(0xCFC, value)


def _store32(address: int, value: int) -> bytes:
    """mov dword [address], value, with 32-bit address and operand"""
    return b"\x67\x66\xc7\x05" + address.to_bytes(4, "little") + value.to_bytes(4, "little")


def _wire_interrupts() -> bytes:
    """Let the old controllers' interrupts through the local APIC, which masks them after a reset.

    Its registers are out of real mode's reach: a moment in protected mode gives DS a 4 GiB limit.
    """
    return b"".join(
        (
            b"\x2e\x0f\x01\x16" + _GDTR_AT.to_bytes(2, "little"),  # lgdt [cs:GDTR_AT]
            b"\x0f\x20\xc0\x0c\x01\x0f\x22\xc0",  # mov eax, cr0; or al, 1; mov cr0, eax
            b"\xbb\x08\x00\x8e\xdb",  # mov bx, 8; mov ds, bx
            b"\x24\xfe\x0f\x22\xc0",  # and al, not 1; mov cr0, eax
            b"\x31\xc0\x8e\xd8",  # xor ax, ax; mov ds, ax
            _store32(_LOCAL_APIC + 0xF0, 0x1FF),  # enabled, spurious vector 255
            _store32(_LOCAL_APIC + 0x350, 0x700),  # LINT0: from the external controller
            _store32(_LOCAL_APIC + 0x360, 0x400),  # LINT1: NMI
        )
    )


def _setup() -> bytes:
    return b"".join(
        (
            b"\xfa",  # cli
            b"\x31\xc0\x8e\xd8\x8e\xd0",  # xor ax, ax; mov ds, ax; mov ss, ax
            b"\xbc\x00\x7c",  # mov sp, 0x7c00
            _pci_write16(0x40, PM_BASE | 1),  # base address; bit 0 says I/O
            _pci_write16(0x80, 1),  # PMREGMISC: the registers are there from now on
            _out16(_ENABLE, _BUTTON),  # QEMU notes a press only while the button is enabled
            _port8(_HOTPLUG, 0),  # leaves the old interface, which cannot unplug
            *(_set_vector(_TIMER_VECTOR, _TIMER_AT), _set_vector(_NMI_VECTOR, _NMI_AT)),
            _wire_interrupts(),
            # Interrupt controllers: vectors 8 and 0x70, cascade on 2, 8086 mode; timer alone on.
            *(_out8(0x20, 0x11), _out8(0x21, _TIMER_VECTOR), _out8(0x21, 4), _out8(0x21, 1)),
            *(_out8(0xA0, 0x11), _out8(0xA1, 0x70), _out8(0xA1, 2), _out8(0xA1, 1)),
            *(_out8(0x21, 0xFE), _out8(0xA1, 0xFF)),
            # Timer: channel 0, square wave, longest period (65536 / 1.19 MHz = 55 ms).
            *(_out8(0x43, 0x36), _out8(0x40, 0), _out8(0x40, 0)),
        )
    )


def _let_go() -> bytes:
    """Answer for the vCPU with an event, if there is one: it has come, or it may go."""
    removing = _port8(_HOTPLUG_FLAGS, _TO_REMOVE) + _port8(_HOTPLUG_FLAGS, _EJECT)
    coming = _port8(_HOTPLUG_FLAGS, _INSERTED)
    return b"".join(
        (
            _port8(_HOTPLUG_COMMAND, 0),  # select the next vCPU with an event
            b"\xba" + _HOTPLUG_FLAGS.to_bytes(2, "little") + b"\xec",  # mov dx, flags; in al, dx
            *(b"\xa8", bytes((_TO_REMOVE,)), b"\x74", bytes((len(removing),)), removing),
            *(b"\xa8", bytes((_INSERTED,)), b"\x74", bytes((len(coming),)), coming),
        )  # test al, flag; jz over what answers it (the value answered with has no other flag)
    )


def _wait() -> bytes:
    let_go = _let_go()
    back = -(len(let_go) + 10)
    return b"".join(
        (
            b"\xfb",  # sti
            b"\xf4",  # hlt
            let_go,
            b"\xba" + _STATUS.to_bytes(2, "little"),  # mov dx, status
            b"\xed",  # in ax, dx
            b"\xf6\xc4" + bytes((_BUTTON >> 8,)),  # test ah, button
            b"\x74" + back.to_bytes(1, "little", signed=True),  # jz to hlt
            _out16(_CONTROL, _SLEEP_S5),
            b"\xfa\xf4\xeb\xfd",  # cli; hlt; jmp to hlt
        )
    )


def _set_vector(vector: int, handler: int) -> bytes:
    """mov word [vector * 4], handler; mov word [vector * 4 + 2], 0xf000"""
    slot = vector * 4
    return b"".join(
        b"\xc7\x06" + at.to_bytes(2, "little") + value.to_bytes(2, "little")
        for at, value in ((slot, handler), (slot + 2, 0xF000))
    )


def image() -> bytes:
    """The firmware as QEMU's -bios takes it: code at F000:0000, the reset vector at its end."""
    parts = {
        0: _setup() + _wait(),
        _TIMER_AT: b"\x50" + _out8(0x20, 0x20) + b"\x58\xcf",  # push ax; ...; pop ax; iret
        _GDT_AT: bytes(8) + b"\xff\xff\x00\x00\x00\x92\xcf\x00",  # null; data, base 0, 4 GiB
        _NMI_AT: _port8(_RESET_PORT, _RESET) + b"\xf4\xeb\xfd",  # ...; hlt; jmp to hlt
        _GDTR_AT: (15).to_bytes(2, "little") + (0xF0000 + _GDT_AT).to_bytes(4, "little"),
        SIZE - 16: b"\xea\x00\x00\x00\xf0",  # jmp 0xf000:0
    }
    rom = bytearray(b"\xf4" * SIZE)
    for at, data in parts.items():
        rom[at : at + len(data)] = data
    return bytes(rom)
