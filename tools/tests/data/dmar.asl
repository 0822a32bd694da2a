// SPDX-License-Identifier: GPL-2.0-only
// A laptop: its graphics has a unit of its own, and a region; so has its USB controller,
// and a card behind two bridges.
[0004] Signature : "DMAR"
[0004] Table Length : 00000000
[0001] Revision : 01
[0001] Checksum : 00
[0006] Oem ID : "VENDOR"
[0008] Oem Table ID : "LAPTOP01"
[0004] Oem Revision : 00000002
[0004] Asl Compiler ID : "INTL"
[0004] Asl Compiler Revision : 20200925

[0001] Host Address Width : 26
[0001] Flags : 05
[0010] Reserved : 00 00 00 00 00 00 00 00 00 00

[0002] Subtable Type : 0000
[0002] Length : 0018
[0001] Flags : 00
[0001] Reserved : 00
[0002] PCI Segment Number : 0000
[0008] Register Base Address : 00000000FED90000
[0001] Device Scope Type : 01
[0001] Entry Length : 08
[0002] Reserved : 0000
[0001] Enumeration ID : 00
[0001] PCI Bus Number : 00
[0002] PCI Path : 02,00

[0002] Subtable Type : 0000
[0002] Length : 0018
[0001] Flags : 01
[0001] Reserved : 00
[0002] PCI Segment Number : 0000
[0008] Register Base Address : 00000000FED91000
[0001] Device Scope Type : 04
[0001] Entry Length : 08
[0002] Reserved : 0000
[0001] Enumeration ID : 02
[0001] PCI Bus Number : 00
[0002] PCI Path : 1E,06

[0002] Subtable Type : 0001
[0002] Length : 0028
[0002] Reserved : 0000
[0002] PCI Segment Number : 0000
[0008] Base Address : 000000008B000000
[0008] End Address (limit) : 000000008F7FFFFF
[0001] Device Scope Type : 01
[0001] Entry Length : 08
[0002] Reserved : 0000
[0001] Enumeration ID : 00
[0001] PCI Bus Number : 00
[0002] PCI Path : 02,00
[0001] Device Scope Type : 01
[0001] Entry Length : 08
[0002] Reserved : 0000
[0001] Enumeration ID : 00
[0001] PCI Bus Number : 00
[0002] PCI Path : 14,00

[0002] Subtable Type : 0001
[0002] Length : 0024
[0002] Reserved : 0000
[0002] PCI Segment Number : 0000
[0008] Base Address : 0000000089F00000
[0008] End Address (limit) : 0000000089F0FFFF
[0001] Device Scope Type : 01
[0001] Entry Length : 0C
[0002] Reserved : 0000
[0001] Enumeration ID : 00
[0001] PCI Bus Number : 00
[0002] PCI Path : 1C,04
[0002] PCI Path : 01,00
[0002] PCI Path : 00,01

[0002] Subtable Type : 0003
[0002] Length : 0014
[0004] Reserved : 00000000
[0008] Base Address : 00000000FED91000
[0004] Proximity Domain : 00000001

[0002] Subtable Type : 0004
[0002] Length : 0015
[0003] Reserved : 000000
[0001] Device Number : 01
[0013] Device Name : "\_SB.PCI.I2C"
