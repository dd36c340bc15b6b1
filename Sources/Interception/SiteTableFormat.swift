// The site table: a file made by `SiteTable`, read by the preloaded library (which compiles this file through a symlink).
//
// Little-endian; every field at the offset named here. A header, then a record per object, then the sites of all objects
// in ascending order of address:
//
//     header   0 magic "DASHSITE"   8 version u32   12 objects u32   16 sites u32   20 zero u32   24 digest u64
//     object   0 build id [32]   32 its length u32   36 first site u32   40 sites u32   44 kind u32 (0 libc, 1 ld.so)
//     site     0 window u32, from the object's load address   4 length of the window u8   5 bytes before the syscall u8
//              6, 7 where in the window a 32-bit rip-relative displacement stands, or 0xff, u8 each
//              8 call number, or -1 if several, i32   12 the window's bytes [28]

package enum SiteTableFormat {
    package static var magic: UInt64 { 0x4554_4953_4853_4144 }
    package static var version: UInt32 { 1 }
    package static var headerSize: Int { 32 }
    package static var objectSize: Int { 48 }
    package static var siteSize: Int { 40 }
    package static var buildIDCapacity: Int { 32 }
    package static var windowCapacity: Int { 28 }
    /// What a slot has room for on each side of its syscall.
    package static var displacedCapacity: Int { 16 }
    package static var noFixup: UInt8 { 0xff }
    /// More than any C library needs, and few enough that every size computed from a count fits.
    package static var maximumObjects: UInt32 { 16 }
    package static var maximumSites: UInt32 { 4096 }
    /// `jmp rel32`, which replaces the beginning of a window.
    package static var jumpSize: Int { 5 }

    /// Over all 64-bit words behind the header: tells a torn or damaged cache file, nothing more.
    package static func digest(_ hash: UInt64, word: UInt64) -> UInt64 {
        // Wrapping is what a multiplicative hash does.
        (hash ^ word) &* 0x9E37_79B9_7F4A_7C15 ^ (hash &>> 29)
    }
    package static var digestSeed: UInt64 { 0x6461_7368_6673_0001 }
}
