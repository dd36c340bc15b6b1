/// A server's volume in a process of its own, which dies of SIGKILL at a store of `apply`: what is then in its memory and on its device is for
/// the one who started it.
///
///     dashfs-victim REGION DEVICE PROGRESS SEED STORE
///
/// REGION, DEVICE and PROGRESS are images shared with that one; the first word of PROGRESS is the number of the operation under way.
import BlockDevice
import Glibc
import TestSupport
import Volume

let arguments = CommandLine.arguments
guard arguments.count == 6, let seed = UInt64(arguments[4]), let store = Int(arguments[5]) else { exit(64) }
let region = SharedImage.map(arguments[1])
let progress = SharedImage.map(arguments[3])
let device = unsafe MemoryDevice(mapping: SharedImage.map(arguments[2]).bytes, owner: nil, description: "victim") { $0.atomicWriteUnit = ShortLife.atomic(seed) }
do {
    let life = try ShortLife(seed: seed, device: device, shared: region)
    life.volume.volume.abortHook = { kill(getpid(), SIGKILL) }
    life.volume.volume.abortAtStep = store
    for number in 0..<ShortLife.operations {
        unsafe progress.bytes.storeBytes(of: UInt64(number), as: UInt64.self)
        if let problem = life.step() {
            print("operation \(number): \(problem)")
            exit(1)
        }
    }
} catch {
    print("\(error)")
    exit(1)
}
