// SPDX-License-Identifier: GPL-2.0-only
// A root complex and a DMA controller behind one SMMUv3.
[0004] Signature : "IORT"
[0004] Table Length : 00000000
[0001] Revision : 00
[0001] Checksum : 00
[0006] Oem ID : "VENDOR"
[0008] Oem Table ID : "ARMBOX01"
[0004] Oem Revision : 00000003
[0004] Asl Compiler ID : "INTL"
[0004] Asl Compiler Revision : 20200925

[0004] Node Count : 00000003
[0004] Node Offset : 00000034
[0004] Reserved : 00000000
[0004] Optional Padding : 00 00 00 00

[0001] Type : 04
[0002] Length : 0044
[0001] Revision : 01
[0004] Reserved : 00000000
[0004] Mapping Count : 00000000
[0004] Mapping Offset : 00000000
[0008] Base Address : 0000000009050000
[0004] Flags (decoded below) : 00000001
    COHACC Override : 1
    HTTU Override : 0
    Proximity Domain Valid : 0
[0004] Reserved : 00000000
[0008] VATOS Address : 0000000000000000
[0004] Model : 00000000
[0004] Event GSIV : 0000006A
[0004] PRI GSIV : 0000006B
[0004] GERR GSIV : 0000006D
[0004] Sync GSIV : 0000006C
[0004] Proximity Domain : 00000000
[0004] Device ID Mapping Index : 00000000

[0001] Type : 02
[0002] Length : 0038
[0001] Revision : 00
[0004] Reserved : 00000000
[0004] Mapping Count : 00000001
[0004] Mapping Offset : 00000024
[0008] Memory Properties : [IORT Memory Access Properties]
[0004] Cache Coherency : 00000001
[0001] Hints (decoded below) : 00
    Transient : 0
    Write Allocate : 0
    Read Allocate : 0
    Override : 0
[0002] Reserved : 0000
[0001] Memory Flags (decoded below) : 03
    Coherency : 1
    Device Attribute : 1
[0004] ATS Attribute : 00000001
[0004] PCI Segment Number : 00000002
[0001] Memory Size Limit : 30
[0003] Reserved : 000000
[0004] Input base : 00000000
[0004] ID Count : 000000FF
[0004] Output Base : 00000100
[0004] Output Reference : 00000034
[0004] Flags (decoded below) : 00000000
    Single Mapping : 0

[0001] Type : 01
[0002] Length : 0040
[0001] Revision : 00
[0004] Reserved : 00000000
[0004] Mapping Count : 00000001
[0004] Mapping Offset : 0000002C
[0004] Node Flags : 00000000
[0008] Memory Properties : [IORT Memory Access Properties]
[0004] Cache Coherency : 00000001
[0001] Hints (decoded below) : 00
    Transient : 0
    Write Allocate : 0
    Read Allocate : 0
    Override : 0
[0002] Reserved : 0000
[0001] Memory Flags (decoded below) : 03
    Coherency : 1
    Device Attribute : 1
[0001] Memory Size Limit : 20
[0010] Device Name : "\_SB.DMA0"
[0005] Padding : 00 00 00 00 00
[0004] Input base : 00000000
[0004] ID Count : 00000000
[0004] Output Base : 00000042
[0004] Output Reference : 00000034
[0004] Flags (decoded below) : 00000001
    Single Mapping : 1
