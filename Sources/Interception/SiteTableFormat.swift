// A site table: what of one object is rewritten, and how. Made by `SiteTableCache`, read by the preloaded library (which compiles this file through a symlink).
//
// The object is known by its identity: its build id, or where it has none a digest of its code and the length of that. A directory holds the tables of many objects, each under
// its identity in hexadecimal. Little-endian; every field at the offset named here. A header, then the sites in ascending order of address, then the redirected calls:
//
//     header   0 magic "DASHSITE"   8 version u32   12 kind u32   16 sites u32   20 redirected calls u32   24 digest u64
//              32 identity [32]   64 its length u32   68 zero u32
//     site     0 window u32, from the object's load address   4 length of the window u8   5 bytes before the syscall u8
//              6, 7 where in the window a 32-bit rip-relative displacement stands, or 0xff, u8 each
//              8 call number, or -1 if several, i32   12 the window's bytes [28]
//     call     0 address of the call instruction u32   4 the function it calls u32, both from the load address

package enum SiteTableFormat {
    /// What an object is to the preloaded library: without the first two a program does not run, the others' calls would go past.
    package enum Kind: UInt32 { case libc = 0, loader = 1, other = 2 }

    package static var magic: UInt64 { 0x4554_4953_4853_4144 }
    package static var version: UInt32 { 2 }
    package static var headerSize: Int { 72 }
    package static var siteSize: Int { 40 }
    package static var callSize: Int { 8 }
    package static var identityCapacity: Int { 32 }
    package static var windowCapacity: Int { 28 }
    /// What a slot has room for on each side of its syscall.
    package static var displacedCapacity: Int { 16 }
    package static var noFixup: UInt8 { 0xff }
    /// More than any object needs, and few enough that every size computed from a count fits.
    package static var maximumSites: UInt32 { 4096 }
    package static var maximumCalls: UInt32 { 8 }
    /// `jmp rel32`, which replaces the beginning of a window.
    package static var jumpSize: Int { 5 }

    /// Over all 64-bit words behind the header: tells a torn or damaged cache file, nothing more.
    package static func digest(_ hash: UInt64, word: UInt64) -> UInt64 {
        // Wrapping is what a multiplicative hash does.
        (hash ^ word) &* 0x9E37_79B9_7F4A_7C15 ^ (hash &>> 29)
    }
    package static var digestSeed: UInt64 { 0x6461_7368_6673_0001 }
}
