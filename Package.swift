// swift-tools-version: 6.2
import PackageDescription

/// Every Swift module: Swift 6 mode, strict memory safety, warnings are errors. Exclusivity of class properties is checked
/// dynamically in debug builds only: a check costs 86 instructions, and the volume is single-threaded by construction.
let ordinary: [SwiftSetting] = [
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
    .enableExperimentalFeature("Lifetimes"),
    .unsafeFlags(["-enforce-exclusivity=unchecked"], .when(configuration: .release)),
]

/// What is loaded into other programs is Embedded Swift, whole-module: nothing but libc is needed (docs/HACKING.md).
let embedded: [SwiftSetting] = [
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
    .enableExperimentalFeature("Embedded"),
    .enableExperimentalFeature("Lifetimes"),
    .unsafeFlags(["-wmo"]),
]

func embeddedLink(_ versionScript: String, soname: String) -> [LinkerSetting] {
    [
        .unsafeFlags([
            "-Xlinker", "-z", "-Xlinker", "defs", "-Xlinker", "-z", "-Xlinker", "now", "-Xlinker", "--gc-sections",
            "-Xlinker", "-soname", "-Xlinker", soname,
            "-Xlinker", "--version-script=\(Context.packageDirectory)/Sources/\(versionScript)",
        ])
    ]
}

let package = Package(
    name: "dashfs",
    products: [
        .executable(name: "dashfs", targets: ["dashfs"]),
        .library(name: "DashFS", targets: ["DashFS"]),
        .library(name: "dashfs-preload", type: .dynamic, targets: ["Preload"]),
        .library(name: "dashfs-c", type: .dynamic, targets: ["CAPI"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
    ],
    targets: [
        .target(name: "CSystem"),
        .systemLibrary(name: "CLiburing", pkgConfig: "liburing", providers: [.apt(["liburing-dev"])]),
        .target(name: "Wire", dependencies: ["CSystem"], swiftSettings: ordinary),
        .target(name: "Client", dependencies: ["Wire"], swiftSettings: ordinary),
        .target(name: "DashFS", dependencies: ["Client"], swiftSettings: ordinary),
        .target(
            name: "CAPI", dependencies: ["CSystem"], exclude: ["exports.map"], swiftSettings: embedded,
            linkerSettings: embeddedLink("CAPI/exports.map", soname: "libdashfs.so.1")),
        .target(
            name: "CPreload", dependencies: ["CSystem"], cSettings: [.unsafeFlags(["-O2", "-fno-builtin", "-fvisibility=hidden"])]),
        .target(
            name: "Preload", dependencies: ["CSystem", "CPreload"], exclude: ["exports.map"],
            // -g and dashfs_unwind_anchor together give every function unwind information: threads are cancelled in the hook.
            swiftSettings: embedded + [.define("PRELOAD"), .unsafeFlags(["-g", "-Xfrontend", "-enable-single-module-llvm-emission"])],
            // It needs no other library: what it uses of libc is weak (EarlyInstance.swift says why).
            linkerSettings: embeddedLink("Preload/exports.map", soname: "libdashfs-preload.so")
                + [.unsafeFlags(["-Xlinker", "-z", "-Xlinker", "initfirst", "-Xlinker", "--strip-debug", "-Xclang-linker", "-nodefaultlibs"])]),
        .target(name: "Interception", dependencies: ["CSystem"], swiftSettings: ordinary),
        .target(name: "BlockDevice", dependencies: ["CSystem", "CLiburing"], swiftSettings: ordinary),
        .executableTarget(name: "dashfs-device-bench", dependencies: ["BlockDevice"], swiftSettings: ordinary),
        .target(name: "Volume", dependencies: ["BlockDevice", "CSystem"], swiftSettings: ordinary),
        .target(
            name: "Server",
            dependencies: ["Wire", "Volume", "BlockDevice", .product(name: "Logging", package: "swift-log")], swiftSettings: ordinary),
        .executableTarget(
            name: "dashfs",
            dependencies: [
                "Server", "DashFS", "Client", "Wire", "Volume", "BlockDevice", "Interception", "CSystem",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
            ], swiftSettings: ordinary),
        .executableTarget(
            name: "dashfs-instructions",
            dependencies: ["Server", "Client", "Volume", "TestSupport", "CSystem", .product(name: "Logging", package: "swift-log")],
            path: "Benchmarks/Instructions", swiftSettings: ordinary),
        .executableTarget(name: "example-records", dependencies: ["DashFS"], path: "Examples/Swift", swiftSettings: ordinary),
        .target(name: "TestSupport", dependencies: ["Volume", "BlockDevice", "CSystem"], swiftSettings: ordinary),
        .testTarget(
            name: "InterceptionTests", dependencies: ["Interception"], exclude: ["Programs", "debian-library"], swiftSettings: ordinary),
        .testTarget(name: "BlockDeviceTests", dependencies: ["BlockDevice", "TestSupport", "dashfs-device-bench"], swiftSettings: ordinary),
        // A process that is killed between two stores, for VolumeTests.
        .executableTarget(name: "dashfs-victim", dependencies: ["Volume", "BlockDevice", "TestSupport"], path: "Tests/Victim", swiftSettings: ordinary),
        .testTarget(name: "VolumeTests", dependencies: ["Volume", "TestSupport", "CSystem", "dashfs-victim"], swiftSettings: ordinary),
        .testTarget(name: "ProgramTests", swiftSettings: ordinary),
        .testTarget(name: "ServerTests",
            dependencies: ["Server", "Client", "DashFS", "TestSupport", .product(name: "InMemoryLogging", package: "swift-log")], swiftSettings: ordinary),
    ]
)
