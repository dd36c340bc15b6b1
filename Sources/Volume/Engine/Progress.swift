/// What a request remembers across reruns and between the steps of long work. Changes take effect when a step commits, or when
/// the operation parks after saying so (`keepProgress`).
package struct Progress: Sendable {
    /// Bytes moved by committed steps of a transfer.
    package var moved: UInt64 = 0
    /// Position of a write-back pass in its list, of a scan in its table; where a transfer began.
    package var done: UInt64 = 0
    /// fsync: the record that must be durable, once fixed.
    package var target: UInt64 = 0
    package var phase: UInt8 = 0
    /// Some of what a write has moved is in the cache.
    package var wasCached = false
    /// sync: the errno of a file whose write-back failed; the others still get theirs.
    package var failure: Int32 = 0
    /// The inode whose range ticket this request holds (0: none).
    package var ticketInode: UInt64 = 0
    /// Number of the list of indexes that a write-back pass works through (-1: none).
    package var work = -1
    /// mmap: the file whose memory it is making (0: none).
    package var mapped: UInt64 = 0
    /// Page that the search for what programs have stored comes to next (`.max`: it has ended); sync: the file that it is in.
    package var absorbed: UInt64 = 0
    package var absorbing: UInt64 = 0
    /// Blocks of the volume's reservations that are this request's: what its later steps will allocate.
    package var reserved = 0
}
