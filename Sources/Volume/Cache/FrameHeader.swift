/// What a cache frame holds: 64 bytes in shared memory, readable by the next server. Keys: metadata by (0, block), file data by
/// (inode, index in the file).
package struct FrameHeader {
    package var owner: UInt64
    package var index: UInt64
    /// Home block on the device; 0 for data that has none yet.
    package var block: UInt64
    /// The oldest journal record whose image of this block replay needs until the frame is home; 0: none.
    package var imageSequence: UInt64
    /// The newest journal record with a change of this frame: durable before the frame goes home.
    package var lastSequence: UInt64
    package var state: FrameState
    package var flags: UInt8
    package var unused16: UInt16
    package var unused32: UInt32
    package var unused: (UInt64, UInt64)

    static let empty = FrameHeader(
        owner: 0, index: 0, block: 0, imageSequence: 0, lastSequence: 0, state: .empty, flags: 0, unused16: 0, unused32: 0, unused: (0, 0))
}

package enum FrameState: UInt8 {
    case empty = 0
    /// A read from the device is under way.
    case filling
    case clean
    /// Newer than the device.
    case dirty
    /// Dirty, and its content is on its way home: the frame is not modified, changes go to a copy.
    case writing
}

enum FrameFlag {
    /// File data that is in no journal record and not on its way home.
    static let needsWriteback: UInt8 = 1
    /// One block of the in-core inode's reservation belongs to this frame.
    static let reserved: UInt8 = 2
    /// Replaced while it was being written; freed when that ends.
    static let detached: UInt8 = 4
    /// Written home in place of a fresh allocation; the journal's next record waits for it.
    static let ordered: UInt8 = 8
}
