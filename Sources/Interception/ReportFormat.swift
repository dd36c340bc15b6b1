// The page in which the preloaded library counts calls for `dashfs run --report`, and from which `run` reads them at the end: shared memory of all
// programs that the command starts. Written by wrapping additions only, so counts are right whoever is killed when.
//
//     0     u64 magic            8    u64 programs that have been loaded with the library
//     16    u64 execs that have not come back with an error
//     4096  u64 for each call number below 512: calls that DashFS answered
//     8192  u64 for each: calls that the kernel answered
//     12288 u64 how many objects were met that may have system calls of their own which are not carried; of the first 64 the paths, 256 bytes from 16384 on, each with a zero

package enum ReportFormat {
    package static var magic: UInt64 { 0x7472_7052_6873_6144 }
    package static var numbers: Int { 512 }
    package static var programsAt: Int { 8 }
    package static var execsAt: Int { 16 }
    package static var answeredAt: Int { 4096 }
    package static var passedAt: Int { 8192 }
    package static var objectsAt: Int { 12288 }
    package static var pathsAt: Int { 16384 }
    package static var paths: Int { 64 }
    package static var pathBytes: Int { 256 }
    package static var bytes: Int { 32768 }
    /// The environment variable with the path under which programs open it: through the descriptors of `run` itself, so that programs may close all of theirs.
    package static var environmentName: String { "DASHFS_REPORT" }
}
