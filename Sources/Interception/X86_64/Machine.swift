// What object files, the loader and its places are called on this processor: elf(5), ld.so(8), glibc's sysdeps/x86_64 and Debian's multiarch names.

enum Machine {
    /// e_machine.
    static let elf: UInt16 = 62
    static let name = "x86-64"
    /// How the loader's file name begins, with a slash before it.
    static let loader = "ld-linux-x86-64.so"
    static let libraries = ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"]
    /// $LIB and $PLATFORM in search paths.
    static let librarySuffix = "lib/x86_64-linux-gnu"
    static let platform = "x86_64"
    /// The flags of its entries in ld.so.cache.
    static let cacheFlags = 0x303
    /// The bytes of the instruction that makes a system call.
    static let systemCall: (UInt8, UInt8) = (0x0f, 0x05)
}
