# SPDX-License-Identifier: GPL-2.0-only
"""ACPI tables as firmware writes them, put together byte by byte from the specifications.

Nothing here uses the package: what it reads and writes is checked against these bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from iommuq.firmware.tables import iort
from iommuq.firmware.tables.acpi import pack


def sealed(table: bytes) -> bytes:
    """Return a table with its length and checksum mended."""
    table = table[:4] + struct.pack("<I", len(table)) + table[8:9] + b"\0" + table[10:]
    return table[:9] + bytes([-sum(table) & 0xFF]) + table[10:]


def patched(data: bytes, offset: int, new: bytes) -> bytes:
    """Return a table with some bytes replaced, and its checksum mended."""
    return sealed(data[:offset] + new + data[offset + len(new) :])


def table(signature: bytes, revision: int, *body: bytes) -> bytes:
    """Return a table with the header that QEMU gives it."""
    head = signature + struct.pack("<IBB", 0, revision, 0) + b"BOCHS BXPC    "
    return sealed(head + struct.pack("<I4sI", 1, b"BXPC", 1) + b"".join(body))


def hexed(text: str) -> bytes:
    """Return the bytes of a hex dump with spaces and line breaks."""
    return bytes.fromhex("".join(text.split()))


#: 39 bits, interrupt remapping.
DMAR_HEAD = hexed("26 01") + bytes(10)
#: Unit at 0xfed90000, no flags; the I/O APIC as ff:00.0, and 00:05.0.
DRHD = hexed("""
    00 00 20 00  00 00 00 00  00 00 d9 fe 00 00 00 00
    03 08 00 00  00 ff 00 00
    01 08 00 00  00 00 05 00""")
#: Every root port.
ATSR = hexed("02 00 08 00  01 00 00 00")
#: 0x3e000000-0x3e00ffff for 00:05.0.
RMRR = hexed("""
    01 00 20 00  00 00 00 00  00 00 00 3e 00 00 00 00  ff ff 00 3e 00 00 00 00
    01 08 00 00  00 00 05 00""")
#: What QEMU writes with intel-iommu and device-iotlb.
QEMU_DMAR = table(b"DMAR", 1, DMAR_HEAD, DRHD, ATSR)

#: Segment 1, for 1:00:1c.0/00.1, and all that is below the bridge 1:00:1d.0.
RMRR_BRIDGES = hexed("""
    01 00 2a 00  00 00 01 00  00 00 10 7d 00 00 00 00  ff ff 1f 7d 00 00 00 00
    01 0a 00 00  00 00 1c 00 00 01
    02 08 00 00  00 00 1d 00""")
#: The unit at 0xfed91000 is near proximity domain 1.
RHSA = hexed("03 00 14 00  00 00 00 00  00 10 d9 fe 00 00 00 00  01 00 00 00")
ANDD = hexed("04 00 17 00  00 00 00 01") + b"\\_SB.PCI0.I2C0\0"
#: All other devices; ACPI device 1 as 00:15.0.
DRHD_ALL = hexed("""
    00 00 18 00  01 00 00 00  00 10 d9 fe 00 00 00 00
    05 08 00 00  01 00 15 00""")
SATC = hexed("05 00 10 00  01 00 00 00  01 08 00 00 00 00 02 00")
SIDP = hexed("06 00 10 00  00 00 00 00  01 08 03 00 00 00 02 00")
UNKNOWN = hexed("2a 00 07 00  de ad be")
#: One of everything.
REAL_DMAR = table(
    b"DMAR", 2, hexed("2e 05"), bytes(10),
    DRHD, DRHD_ALL, RMRR, RMRR_BRIDGES, ATSR, RHSA, SATC, SIDP, ANDD, UNKNOWN,
)  # fmt: skip

#: 40 bits of physical and 48 of virtual addresses.
IVRS_HEAD = hexed("01 28 18 00") + bytes(8)
#: IOMMU 00:02.0: all from 00:00.0 to ff:1f.7, and the I/O APIC as 00:14.0.
IVHD_10 = hexed("""
    10 51 28 00  10 00  40 00  00 00 d8 fe 00 00 00 00  00 00 00 00  44 00 00 00
    03 00 00 00  04 ff ff 00
    48 00 00 00  00 a0 00 01""")
IVHD_11 = hexed("""
    11 51 38 00  10 00  40 00  00 00 d8 fe 00 00 00 00  00 00 00 00  00 00 00 00
    d3 29 00 00 00 00 00 00  00 00 00 00 00 00 00 00
    03 00 00 00  04 ff ff 00
    48 00 00 00  00 a0 00 01""")
#: What QEMU writes with amd-iommu.
QEMU_IVRS = table(b"IVRS", 1, IVRS_HEAD, IVHD_10, IVHD_11)

#: As real firmware: all, a device, an alias and its range, ATS off, HPET, padding, ACPI device.
IVHD_40 = hexed("""
    40 b0 7f 00  10 00  40 00  00 00 d8 fe 00 00 00 00  00 00 00 00  00 00 00 00
    4a 22 ef 22 ee 7b 29 00  00 00 00 00 00 00 00 00
    01 00 00 00
    02 09 00 d7
    42 00 05 00 00 a4 00 00
    43 00 06 00 00 a5 00 00
    04 ff 06 00
    46 08 00 00 00 00 00 80
    48 00 00 00 01 a0 00 02
    00 00 00 00
    f0 a5 00 40  41 4d 44 49 30 30 32 30  00 00 00 00 00 00 00 00  02 05  5c 5f 53 42 2e
    47 10 00 00 00 00 00 80
    04 1f 00 00""")
#: Unity map, read and write, for 00:05.0.
IVMD_ONE = hexed("""
    21 07 20 00  28 00 00 00  00 00 00 00 00 00 00 00
    00 00 00 3e 00 00 00 00  00 00 01 00 00 00 00 00""")
#: Exclusion range for 00:01.0 to 00:1f.7.
IVMD_RANGE = hexed("""
    22 08 20 00  08 00 ff 00  00 00 00 00 00 00 00 00
    00 00 00 7c 00 00 00 00  00 00 20 00 00 00 00 00""")
#: Unity map, read only, for all of segment 1.
IVMD_ALL = hexed("""
    20 03 20 00  00 00 00 00  01 00 00 00 00 00 00 00
    00 00 00 7b 00 00 00 00  00 10 00 00 00 00 00 00""")
REAL_IVRS = table(
    b"IVRS", 2, IVRS_HEAD, IVHD_10, IVHD_40, IVMD_ONE, IVMD_RANGE, IVMD_ALL,
    hexed("7f 00 06 00 01 02"),
)  # fmt: skip

#: What QEMU writes for virt with iommu=smmuv3: ITS group, SMMUv3, root complex.
ITS = hexed("00 18 00 01  00 00 00 00  00 00 00 00  00 00 00 00  01 00 00 00  00 00 00 00")
SMMU_V3 = hexed("""
    04 58 00 04  01 00 00 00  01 00 00 00  44 00 00 00
    00 00 05 09 00 00 00 00  01 00 00 00  00 00 00 00  00 00 00 00 00 00 00 00
    00 00 00 00  6a 00 00 00  6b 00 00 00  6d 00 00 00  6c 00 00 00
    00 00 00 00  00 00 00 00
    00 00 00 00  ff ff 00 00  00 00 00 00  30 00 00 00  00 00 00 00""")
ROOT = hexed("""
    02 38 00 03  02 00 00 00  01 00 00 00  24 00 00 00
    01 00 00 00  00 00 00 03  00 00 00 00  00 00 00 00  40 00 00 00
    00 00 00 00  ff ff 00 00  00 00 00 00  48 00 00 00  00 00 00 00""")
QEMU_IORT = table(b"IORT", 3, struct.pack("<III", 3, 48, 0), ITS, SMMU_V3, ROOT)

#: 0x8000_0000-0x8000_ffff for stream ID 0x10, which is 00:02.0, and again for 0x18.
RMR = hexed("""
    06 6c 00 03  03 00 00 00  02 00 00 00  44 00 00 00
    00 00 00 00  02 00 00 00  1c 00 00 00
    00 00 00 80 00 00 00 00  00 00 01 00 00 00 00 00  00 00 00 00
    00 00 02 80 00 00 00 00  00 00 02 00 00 00 00 00  00 00 00 00
    00 00 00 00  00 00 00 00  10 00 00 00  48 00 00 00  00 00 00 00
    00 00 00 00  00 00 00 00  18 00 00 00  48 00 00 00  00 00 00 00""")
#: A named component with stream ID 0x10000, whatever it sends.
NAMED = (
    hexed("""
    01 40 00 04  04 00 00 00  01 00 00 00  2c 00 00 00
    00 00 00 00  01 00 00 00 00 00 00 03  20""")
    + b"\\_SB.DMA0\0"
    + bytes(5)
    + hexed("""
    00 00 00 00  00 00 00 00  00 00 01 00  48 00 00 00  01 00 00 00""")
)
#: The same region may be remapped, for the named component.
RMR_RELAXABLE = hexed("""
    06 44 00 03  05 00 00 00  01 00 00 00  30 00 00 00
    01 00 00 00  01 00 00 00  1c 00 00 00
    00 00 10 80 00 00 00 00  00 00 01 00 00 00 00 00  00 00 00 00
    00 00 00 00  00 00 00 00  00 00 01 00  48 00 00 00  00 00 00 00""")
REAL_IORT = table(
    b"IORT", 5, struct.pack("<III", 6, 48, 0), ITS, SMMU_V3, ROOT, RMR, NAMED, RMR_RELAXABLE
)  # fmt: skip

ALL = {
    "qemu-dmar": QEMU_DMAR,
    "real-dmar": REAL_DMAR,
    "qemu-ivrs": QEMU_IVRS,
    "real-ivrs": REAL_IVRS,
    "qemu-iort": QEMU_IORT,
    "real-iort": REAL_IORT,
}


def rmr_node(
    ranges: Sequence[iort.MemoryRange],
    mappings: Sequence[iort.IdMapping],
    *,
    flags: int = 0,
    identifier: int = 0,
    revision: int = 3,
) -> iort.Node:
    """Return an RMR node: ranges first, then mappings.

    :param flags: of `REMAP_PERMITTED` and `PRIVILEGED`; bits 9:2 are memory attributes.
    """
    at = iort._NODE_SIZE + 12
    after = at + iort._DESCRIPTOR_SIZE * len(ranges)
    body = pack("RMR", "III", flags, len(ranges), at)
    body += b"".join(one.encode() for one in ranges)
    body += b"".join(one.encode() for one in mappings)
    return iort.Node(iort.RMR, revision, identifier, len(mappings), after if mappings else 0, body)
