// SPDX-License-Identifier: GPL-2.0-only
// A desktop board whose exclusion range reaches over most of its devices.
[0004] Signature : "IVRS"
[0004] Table Length : 00000000
[0001] Revision : 02
[0001] Checksum : 00
[0006] Oem ID : "VENDOR"
[0008] Oem Table ID : "DESKTOP1"
[0004] Oem Revision : 00000007
[0004] Asl Compiler ID : "INTL"
[0004] Asl Compiler Revision : 20200925

[0004] Virtualization Info : 00203040
[0008] Reserved : 0000000000000000

[0001] Subtable Type : 11 [Hardware Definition Block]
[0001] Flags : B0
[0002] Length : 0034
[0002] DeviceId : 0002
[0002] Capability Offset : 0040
[0008] Base Address : 00000000FEB80000
[0002] PCI Segment Group : 0000
[0002] Virtualization Info : 0000
[0004] Attributes : 0003777E
[0008] EFR Image : 206D73EF22254ADE
[0008] Reserved : 0000000000000000
[0001] Entry Type : 03
[0002] Device ID : 0008
[0001] Data Setting : 00
[0001] Entry Type : 04
[0002] Device ID : FFFE
[0001] Data Setting : 00
[0001] Entry Type : 00
[0002] Device ID : 0000
[0001] Data Setting : 00

[0001] Subtable Type : 22 [Memory Definition Block]
[0001] Flags : 08
[0002] Length : 0020
[0002] DeviceId : 0008
[0002] Auxiliary Data : 0FFE
[0008] Reserved : 0000000000000000
[0008] Start Address : 000000009FB67000
[0008] Memory Length : 0000000000020000
